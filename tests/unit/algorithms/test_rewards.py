import torch

from onlinerlhf.algorithms.rewards import kl_per_sequence, kl_per_token, last_token_mask, token_rewards

# Row 0: prompt of 1, response of 3. Row 1: prompt of 2, response of 1, padding.
MASK = torch.tensor([[False, True, True, True], [False, False, True, False]])
LOGPROBS = torch.tensor([[9.0, -1.0, -2.0, -0.5], [9.0, 9.0, -3.0, torch.nan]])
REF_LOGPROBS = torch.tensor([[0.0, -1.5, -1.0, -0.5], [0.0, 0.0, -4.0, 0.0]])


def test_kl_is_the_difference_of_logprobs_on_response_tokens_only() -> None:
    kl = kl_per_token(logprobs=LOGPROBS, ref_logprobs=REF_LOGPROBS, response_mask=MASK)
    assert kl.tolist() == [[0.0, 0.5, -1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


def test_kl_per_sequence_is_a_sum_not_a_mean() -> None:
    kl = torch.tensor([[7.0, 0.5, 0.25, 0.25], [7.0, 7.0, 2.0, 7.0]])
    assert kl_per_sequence(kl=kl, response_mask=MASK).tolist() == [1.0, 2.0]


def test_the_score_lands_on_the_last_response_token_and_kl_is_subtracted_on_each() -> None:
    kl = torch.tensor([[0.0, 0.5, -1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    rewards = token_rewards(scores=torch.tensor([2.0, -1.0]), kl=kl, response_mask=MASK, kl_coef=0.5)
    assert rewards.tolist() == [[0.0, -0.25, 0.5, 2.0], [0.0, 0.0, -1.5, 0.0]]


def test_the_last_token_is_found_at_the_end_of_the_tensor_and_before_padding() -> None:
    assert last_token_mask(MASK).tolist() == [[False, False, False, True], [False, False, True, False]]
