"""From logprobs to token rewards, against numbers worked out by hand. ln 2 = 0.693147, ln 3 = 1.098612."""

from math import log

import pytest
import torch

from onlinerlhf.algorithms.kl import adapted_kl_coef, kl_estimates
from onlinerlhf.algorithms.rewards import (
    kl_per_sequence,
    last_token_mask,
    missing_eos_scores,
    token_rewards,
    whiten_rewards,
)

# Row 0: prompt of 1, response of 3. Row 1: prompt of 2, response of 1, padding.
MASK = torch.tensor([[False, True, True, True], [False, False, True, False]])
LOGPROBS = torch.tensor([[9.0, -1.0, -2.0, -0.5], [9.0, 9.0, -3.0, torch.nan]])
REF_LOGPROBS = torch.tensor([[0.0, -1.5, -1.0, -0.5], [0.0, 0.0, -4.0, 0.0]])


def test_kl_is_the_difference_of_logprobs_on_response_tokens_only() -> None:
    kl = kl_estimates(logprobs=LOGPROBS, ref_logprobs=REF_LOGPROBS, response_mask=MASK).k1
    # -1 - -1.5, -2 - -1, -0.5 - -0.5; -3 - -4
    assert kl.tolist() == [[0.0, 0.5, -1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


def test_kl_per_sequence_is_a_sum_not_a_mean() -> None:
    kl = torch.tensor([[7.0, 0.5, 0.25, 0.25], [7.0, 7.0, 2.0, 7.0]])
    assert kl_per_sequence(kl=kl, response_mask=MASK).tolist() == [1.0, 2.0]


def test_the_three_estimates_of_a_token_half_as_likely_twice_as_likely_and_as_likely_under_the_reference() -> None:
    found = kl_estimates(
        logprobs=torch.tensor([[9.0, log(1 / 2), log(1 / 4), -3.0]], dtype=torch.float64),
        ref_logprobs=torch.tensor([[torch.nan, log(1 / 4), log(1 / 2), -3.0]], dtype=torch.float64),
        response_mask=MASK[:1],
    )
    # log r = -ln 2, ln 2, 0, so k1 = ln 2, -ln 2, 0
    assert found.k1[0].tolist() == pytest.approx([0.0, 0.693147, -0.693147, 0.0], abs=1e-6)
    # (ln 2)^2 / 2
    assert found.k2[0].tolist() == pytest.approx([0.0, 0.240227, 0.240227, 0.0], abs=1e-6)
    # 1/2 - 1 + ln 2 and 2 - 1 - ln 2
    assert found.k3[0].tolist() == pytest.approx([0.0, 0.193147, 0.306853, 0.0], abs=1e-6)


def test_k1_and_k3_average_to_the_divergence_and_k2_does_not() -> None:
    # pi = (1/2, 1/2), pi_ref = (1/4, 3/4): each token is drawn half the time.
    found = kl_estimates(
        logprobs=torch.tensor([[log(1 / 2), log(1 / 2)]], dtype=torch.float64),
        ref_logprobs=torch.tensor([[log(1 / 4), log(3 / 4)]], dtype=torch.float64),
        response_mask=torch.tensor([[True, True]]),
    )
    # KL = 1/2 ln 2 + 1/2 ln 2/3 = (2 * 0.693147 - 1.098612) / 2
    assert found.k1.mean().item() == pytest.approx(0.143841, abs=1e-6)
    # (1/2 - 1 + ln 2 + 3/2 - 1 - ln 3/2) / 2 = (0.193147 + 0.094535) / 2
    assert found.k3.mean().item() == pytest.approx(0.143841, abs=1e-6)
    # (0.693147^2 + 0.405465^2) / 4
    assert found.k2.mean().item() == pytest.approx(0.161214, abs=1e-6)


def test_the_score_lands_on_the_last_response_token_and_kl_is_subtracted_on_each() -> None:
    kl = torch.tensor([[0.0, 0.5, -1.0, 0.25], [0.0, 0.0, 1.0, 0.0]])
    rewards = token_rewards(scores=torch.tensor([2.0, -1.0]), kl=kl, response_mask=MASK, kl_coef=0.02)
    # -0.02 * 0.5, 0.02 * 1, 2 - 0.02 * 0.25; -1 - 0.02 * 1
    torch.testing.assert_close(rewards, torch.tensor([[0.0, -0.01, 0.02, 1.995], [0.0, 0.0, -1.02, 0.0]]))


def test_the_last_token_is_found_at_the_end_of_the_tensor_and_before_padding() -> None:
    assert last_token_mask(MASK).tolist() == [[False, False, False, True], [False, False, True, False]]


def test_whitened_rewards_have_variance_1_around_the_mean_they_had() -> None:
    rewards = torch.tensor([[9.0, 1.0, 3.0, 5.0], [9.0, 9.0, 3.0, torch.nan]])
    # mean 12 / 4 = 3; variance (4 + 0 + 4 + 0) / 4 = 2; 3 - 2 / sqrt 2 and 3 + 2 / sqrt 2
    torch.testing.assert_close(
        whiten_rewards(rewards, MASK), torch.tensor([[0.0, 1.585786, 3.0, 4.414214], [0.0, 0.0, 3.0, 0.0]])
    )


def test_an_unfinished_response_has_its_score_replaced_or_lowered() -> None:
    scores, is_finished = torch.tensor([2.0, 2.0, -3.0]), torch.tensor([True, False, False])
    assert missing_eos_scores(scores=scores, is_finished=is_finished, replace_with=-1.0).tolist() == [2.0, -1.0, -1.0]
    assert missing_eos_scores(scores=scores, is_finished=is_finished, penalty=1.5).tolist() == [2.0, 0.5, -4.5]
    assert missing_eos_scores(scores=scores, is_finished=is_finished).tolist() == [2.0, 2.0, -3.0]


@pytest.mark.parametrize(
    ("kl_per_sequence_nats", "expected"),
    [
        (6.0, 0.02),  # on target
        (6.6, 0.0202),  # e = 0.6 / 6 = 0.1; 0.02 (1 + 0.1 * 0.1)
        (5.4, 0.0198),  # e = -0.1
        (12.0, 0.0204),  # e = 1, held at 0.2; 0.02 (1 + 0.1 * 0.2)
        (0.0, 0.0196),  # e = -1, held at -0.2
    ],
)
def test_the_kl_coefficient_follows_the_relative_error_of_the_sequences_kl(
    kl_per_sequence_nats: float, expected: float
) -> None:
    found = adapted_kl_coef(kl_coef=0.02, kl_per_sequence_nats=kl_per_sequence_nats, target_nats_per_sequence=6.0)
    assert found == pytest.approx(expected, abs=1e-12)
