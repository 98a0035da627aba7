"""1,000 random cases a formula, with ragged responses and garbage around them, against the float64 reference."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from conformance import reference
from conformance.cases import NUM_CASES, Case, counted, random_cases
from conformance.reference import Rows
from onlinerlhf.algorithms.advantages import gae, grpo_advantages, rloo_advantages, whiten_advantages
from onlinerlhf.algorithms.kl import kl_estimates
from onlinerlhf.algorithms.policy_loss import importance_weights, policy_loss
from onlinerlhf.algorithms.preference import preference_loss, ranking_pairs
from onlinerlhf.algorithms.pretraining import pretraining_loss
from onlinerlhf.algorithms.rewards import (
    kl_per_sequence,
    missing_eos_scores,
    token_rewards,
    whiten_rewards,
)
from onlinerlhf.algorithms.value_loss import value_loss

LOSS_INPUTS = ("old_logprobs", "advantages", "weights")


def _gradient(loss: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(loss, by)[0]


def test_kl_per_token_per_sequence_and_its_three_estimates() -> None:
    with counted() as tally:
        for case in random_cases():
            logprobs, ref_logprobs = case.tensor("logprobs"), case.tensor("ref_logprobs")
            found = kl_estimates(logprobs=logprobs, ref_logprobs=ref_logprobs, response_mask=case.mask)
            kl = kl_estimates(logprobs=logprobs, ref_logprobs=ref_logprobs, response_mask=case.mask).k1
            k1, k2, k3 = reference.kl(case.rows("logprobs"), case.rows("ref_logprobs"))
            for estimate, expected in ((kl, k1), (found.k1, k1), (found.k2, k2), (found.k3, k3)):
                tally.tokens(case, estimate, expected)
            sums = kl_per_sequence(kl=kl, response_mask=case.mask)
            tally.numbers(case.seed, sums, [sum(row) for row in k1])


def test_token_rewards() -> None:
    with counted() as tally:
        for case in random_cases():
            found = token_rewards(
                scores=torch.tensor(case.scores, dtype=torch.float64),
                kl=case.tensor("rewards"),
                response_mask=case.mask,
                kl_coef=case.kl_coef,
            )
            expected = reference.token_rewards(case.rows("rewards"), case.scores, kl_coef=case.kl_coef)
            tally.tokens(case, found, expected)


def test_scores_of_responses_without_eos() -> None:
    with counted() as tally:
        for case in random_cases():
            scores = torch.tensor(case.scores, dtype=torch.float64)
            for replace_with, penalty in ((-1.5, 0.0), (0.0, 0.0), (None, case.max_weight), (None, 0.0)):
                found = missing_eos_scores(
                    scores=scores,
                    is_finished=torch.tensor(case.is_finished),
                    replace_with=replace_with,
                    penalty=penalty,
                )
                expected = reference.missing_eos(
                    case.scores, case.is_finished, replace_with=replace_with, penalty=penalty
                )
                tally.numbers(case.seed, found, expected)


def test_advantages_and_returns() -> None:
    with counted() as tally:
        for case in random_cases():
            advantages, returns = gae(
                rewards=case.tensor("rewards"),
                values=case.tensor("old_values"),
                response_mask=case.mask,
                gamma=case.gamma,
                lambda_=case.lambda_,
            )
            expected = reference.gae(
                case.rows("rewards"), case.rows("old_values"), gamma=case.gamma, lambda_=case.lambda_
            )
            tally.tokens(case, advantages, expected[0])
            tally.tokens(case, returns, expected[1])


def test_whitening_of_advantages_and_of_rewards() -> None:
    with counted() as tally:
        for case in random_cases():
            rows, tokens = case.rows("advantages"), case.tensor("advantages")
            tally.tokens(case, whiten_advantages(tokens, case.mask), reference.whiten(rows, shift_mean=True))
            tally.tokens(case, whiten_rewards(tokens, case.mask), reference.whiten(rows, shift_mean=False))


def test_advantages_without_a_critic() -> None:
    with counted() as tally:
        for case in random_cases(min_rows=2):
            rewards, groups = torch.tensor(case.scores, dtype=torch.float64), torch.tensor(case.groups)
            lengths = [end - start for start, end in case.spans]
            for function, numbers in (
                (rloo_advantages, reference.rloo(case.scores, case.groups)),
                (grpo_advantages, reference.grpo(case.scores, case.groups)),
            ):
                found = function(sequence_rewards=rewards, groups=groups, response_mask=case.mask)
                tally.tokens(case, found, [[x] * length for x, length in zip(numbers, lengths, strict=True)])


def test_importance_weights_and_their_statistics() -> None:
    with counted() as tally:
        num_truncated = 0.0
        for case in random_cases():
            found = importance_weights(
                old_logprobs=case.tensor("old_logprobs"),
                behaviour_logprobs=case.tensor("behaviour_logprobs"),
                response_mask=case.mask,
                max_weight=case.max_weight,
            )
            weights, *statistics = reference.importance(
                case.rows("old_logprobs"), case.rows("behaviour_logprobs"), max_weight=case.max_weight
            )
            assert found.weights[~case.mask].eq(1).all()
            tally.tokens(case, torch.where(case.mask, found.weights, 0), weights)
            tally.numbers(case.seed, [found.mean, found.maximum, found.clipped_share], statistics)
            num_truncated += statistics[2]
        assert num_truncated > 50


def test_the_policy_loss_and_its_gradient() -> None:
    with counted() as tally:
        num_clipped = 0.0
        for case in random_cases():
            logprobs = case.tensor("logprobs").requires_grad_()
            found = policy_loss(
                logprobs=logprobs,
                **{name: case.tensor(name) for name in LOSS_INPUTS},
                response_mask=case.mask,
                clip_range=case.clip_range,
                num_tokens=case.num_tokens,
            )
            expected = reference.policy_loss(
                case.rows("logprobs"),
                *(case.rows(name) for name in LOSS_INPUTS),
                clip_range=case.clip_range,
                num_tokens=case.num_tokens,
            )
            tally.tokens(case, _gradient(found.loss, logprobs), expected.gradient)
            numbers = [found.loss.item(), found.pg_clipfrac.item(), found.approx_kl.item()]
            tally.numbers(case.seed, numbers, [expected.loss, expected.clipped, expected.moved])
            num_clipped += expected.clipped
        assert num_clipped > 50


def test_the_value_loss_and_its_gradient() -> None:
    with counted() as tally:
        num_clipped = 0.0
        for case in random_cases():
            values = case.tensor("values").requires_grad_()
            found = value_loss(
                values=values,
                old_values=case.tensor("old_values"),
                returns=case.tensor("returns"),
                response_mask=case.mask,
                clip_range=case.clip_range,
                num_tokens=case.num_tokens,
            )
            expected = reference.value_loss(
                *(case.rows(name) for name in ("values", "old_values", "returns")),
                clip_range=case.clip_range,
                num_tokens=case.num_tokens,
            )
            tally.tokens(case, _gradient(found.loss, values), expected.gradient)
            tally.numbers(case.seed, [found.loss.item(), found.clipfrac.item()], [expected.loss, expected.clipped])
            num_clipped += expected.clipped
        assert num_clipped > 50


def _random_ranking(draw: random.Random) -> tuple[Rows, list[list[int]]]:
    """Prompts with up to nine responses: ties, and missing ones whose score is no number; at least one pair each."""
    num_responses = draw.randint(2, 9)
    scores, ranks = [], []
    for _ in range(draw.randint(1, 6)):
        row = [draw.randint(-1, num_responses - 1) for _ in range(num_responses)]
        row[:2] = [0, 1]
        draw.shuffle(row)
        ranks.append(row)
        scores.append([draw.gauss(0, 2) if rank >= 0 else float("nan") for rank in row])
    return scores, ranks


def test_the_pair_loss_and_its_gradient() -> None:
    with counted() as tally:
        for seed in range(NUM_CASES):
            rows, ranks = _random_ranking(random.Random(seed))
            scores = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
            loss, stats = preference_loss(scores, ranking_pairs(torch.tensor(ranks)))
            expected_loss, gradient, accuracy = reference.pair_loss(rows, ranks)
            tally.numbers(seed, _gradient(loss, scores).flatten(), reference.flat(gradient))
            # The statistics are Python floats made from float32 shares.
            tally.numbers(seed, [loss.item(), stats.loss], [expected_loss, expected_loss])
            assert abs(stats.pair_accuracy - accuracy) < 1e-6


@dataclass(frozen=True, slots=True)
class _Table:
    """A policy that is a table of logits, one row a state: PPO and the mix reach the same parameters through it."""

    logits: Rows
    response: list[list[tuple[int, int]]]
    """[B][T]: the state and the token drawn there."""
    mix: list[tuple[int, int]]

    @classmethod
    def random(cls, draw: random.Random, size: torch.Size) -> "_Table":
        """Five states, seven tokens."""

        def places(count: int) -> list[tuple[int, int]]:
            return [(draw.randrange(5), draw.randrange(7)) for _ in range(count)]

        logits = [[draw.gauss(0, 1) for _ in range(7)] for _ in range(5)]
        return cls(logits, [places(size[1]) for _ in range(size[0])], places(draw.randint(1, 30)))


def _logprobs(logits: Tensor, places: Sequence[tuple[int, int]] | Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    index = torch.tensor(places)
    return logits.log_softmax(-1)[index[..., 0], index[..., 1]]


def _parts(count: int, draw: random.Random) -> list[slice]:
    """A random split of 0 ... count - 1 into neighbouring parts."""
    cuts = sorted({0, count, *(draw.randint(0, count) for _ in range(3))})
    return [slice(start, end) for start, end in pairwise(cuts)]


def _gathered(case: Case, table: _Table, old: Tensor, draw: random.Random) -> Tensor:
    """The gradient that micro-batches of both losses leave in the logits, one backward pass after the other."""
    logits = torch.tensor(table.logits, dtype=torch.float64, requires_grad=True)
    for part in _parts(len(old), draw):
        policy_loss(
            logprobs=_logprobs(logits, table.response[part]),
            old_logprobs=old[part],
            advantages=case.tensor("advantages")[part],
            weights=case.tensor("weights")[part],
            response_mask=case.mask[part],
            clip_range=case.clip_range,
            num_tokens=case.num_tokens,
        ).loss.backward()  # type: ignore[no-untyped-call]
    for part in _parts(len(table.mix), draw):
        loss = pretraining_loss(_logprobs(logits, table.mix[part]), coef=27.8, num_tokens=len(table.mix))
        loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return logits.grad


def _summed(case: Case, table: _Table, old: Tensor) -> Rows:
    """PPO's gradient plus the mix's, by formula."""
    response = [row[start:end] for row, (start, end) in zip(table.response, case.spans, strict=True)]
    ppo = reference.policy_loss(
        [[reference.log_softmax(table.logits[state])[token] for state, token in row] for row in response],
        case.cut(old.tolist()),
        case.rows("advantages"),
        case.rows("weights"),
        clip_range=case.clip_range,
        num_tokens=case.num_tokens,
    )
    slopes = [*reference.flat(ppo.gradient), *([-27.8 / len(table.mix)] * len(table.mix))]
    return reference.table_gradient(table.logits, [*(place for row in response for place in row), *table.mix], slopes)


def test_the_gradient_of_ppo_and_the_pretraining_mix_gathered_over_micro_batches_is_their_sum() -> None:
    with counted() as tally:
        for case in random_cases():
            draw, advantages = random.Random(case.seed), case.tensor("advantages")
            table = _Table.random(draw, advantages.shape)
            # Near the table's own, or every ratio would be clipped; garbage outside the response again.
            now = _logprobs(torch.tensor(table.logits, dtype=torch.float64), table.response)
            old = now + 0.1 * case.tensor("returns")
            gradient = _gathered(case, table, old, draw)
            tally.numbers(case.seed, gradient.flatten(), reference.flat(_summed(case, table, old)))
