import torch

from onlinerlhf.algorithms.batching import ScoredRollout, pack_rows, pad_batch, share_rows, split_minibatches


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


def test_micro_batches_hold_rows_of_like_length_and_never_more_tokens_than_the_bound() -> None:
    assert pack_rows([3, 10, 9, 4, 10], max_tokens=20) == [[1, 4], [2, 3, 0]]
    assert pack_rows([3, 10, 9, 4, 10], max_tokens=36) == [[1, 4, 2, 3, 0]]


def test_a_row_longer_than_the_bound_stands_alone() -> None:
    assert pack_rows([50, 5, 5], max_tokens=10) == [[0], [1, 2]]


def test_rows_are_dealt_out_so_that_the_ranks_have_about_as_many_tokens() -> None:
    assert share_rows([3, 10, 9, 4, 10], 2) == [[1, 2], [4, 3, 0]]
    assert share_rows([5], 3) == [[0], [], []]


def test_every_row_is_in_exactly_one_micro_batch_one_share_and_one_minibatch() -> None:
    lengths = [(row * 37) % 91 + 1 for row in range(200)]
    bins = pack_rows(lengths, max_tokens=512)
    assert sorted(row for rows in bins for row in rows) == list(range(200))
    assert all(sum(lengths[row] for row in rows) <= 512 for rows in bins)
    shares = share_rows(lengths, 3)
    assert sorted(row for rows in shares for row in rows) == list(range(200))
    parts = split_minibatches(200, 7, generator=torch.Generator().manual_seed(0))
    assert sorted(row for part in parts for row in part) == list(range(200))
    assert sorted(len(part) for part in parts) == [28, 28, 28, 29, 29, 29, 29]


def test_fewer_rows_than_minibatches_make_minibatches_of_one() -> None:
    assert sorted(split_minibatches(2, 8)) == [(0,), (1,)]


def test_the_split_depends_on_nothing_but_the_generator() -> None:
    first = split_minibatches(50, 4, generator=torch.Generator().manual_seed(5))
    assert first == split_minibatches(50, 4, generator=torch.Generator().manual_seed(5))
    assert first != split_minibatches(50, 4, generator=torch.Generator().manual_seed(6))
