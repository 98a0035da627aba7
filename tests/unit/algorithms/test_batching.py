import torch

from onlinerlhf.algorithms.batching import ScoredRollout, length_buckets, pad_batch, split_minibatches


def test_rollouts_are_padded_on_the_right_and_only_the_response_is_marked() -> None:
    batch = pad_batch(
        [
            ScoredRollout(prompt_ids=(5, 6), response_ids=(7, 8, 2), behaviour_logprobs=(-1.0, -2.0, -0.5), score=1.5),
            ScoredRollout(prompt_ids=(9,), response_ids=(2,), behaviour_logprobs=(-3.0,), score=-1.0, temperature=0.5),
        ]
    )
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 2], [9, 2, 0, 0, 0]]
    assert batch.response_mask.tolist() == [[False, False, True, True, True], [False, True, False, False, False]]
    assert batch.behaviour_logprobs.tolist() == [[0.0, 0.0, -1.0, -2.0, -0.5], [0.0, -3.0, 0.0, 0.0, 0.0]]
    assert batch.scores.tolist() == [1.5, -1.0]
    assert batch.temperatures.tolist() == [1.0, 0.5]
    assert batch.lengths == (5, 2)
    assert batch.num_response_tokens == 4


def test_buckets_hold_rows_of_like_length_and_never_more_than_the_bound() -> None:
    assert length_buckets([3, 10, 9, 4, 10], max_tokens=20, min_tokens=0) == [[1, 4], [2], [3], [0]]
    assert length_buckets([3, 10, 9, 4, 10], max_tokens=30, min_tokens=0) == [[1, 4, 2], [3], [0]]


def test_a_small_bucket_takes_a_shorter_row_rather_than_opening_another_pass() -> None:
    assert length_buckets([3, 10, 9, 4, 10], max_tokens=1000, min_tokens=1000) == [[1, 4, 2, 3, 0]]


def test_a_row_longer_than_the_bound_stands_alone() -> None:
    assert length_buckets([50, 5, 5], max_tokens=10) == [[0], [1, 2]]


def test_every_row_is_in_exactly_one_bucket_and_one_minibatch() -> None:
    lengths = [(row * 37) % 91 + 1 for row in range(200)]
    buckets = length_buckets(lengths, max_tokens=512)
    assert sorted(row for bucket in buckets for row in bucket) == list(range(200))
    assert all(len(bucket) * max(lengths[row] for row in bucket) <= 512 for bucket in buckets)
    parts = split_minibatches(200, 7, generator=torch.Generator().manual_seed(0))
    assert sorted(row for part in parts for row in part) == list(range(200))
    assert sorted(len(part) for part in parts) == [28, 28, 28, 29, 29, 29, 29]


def test_fewer_rows_than_minibatches_make_minibatches_of_one() -> None:
    assert sorted(split_minibatches(2, 8)) == [(0,), (1,)]


def test_the_split_depends_on_nothing_but_the_generator() -> None:
    first = split_minibatches(50, 4, generator=torch.Generator().manual_seed(5))
    assert first == split_minibatches(50, 4, generator=torch.Generator().manual_seed(5))
    assert first != split_minibatches(50, 4, generator=torch.Generator().manual_seed(6))
