"""Temperature, warm-up, the moving average and the paper's numbers as defaults."""

from math import log
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from onlinerlhf.algorithms.batching import ScoredRollout, pad_batch
from onlinerlhf.learner.ema import EMA
from onlinerlhf.learner.forward import micro_batch, response_logprobs
from onlinerlhf.learner.optimizer import Optimizer
from onlinerlhf.learner.ppo_config import PPOConfig


class _Bigram(torch.nn.Module):
    """Two tokens; after token 0 their logits are ln 4 and 0, after token 1 they are equal."""

    def forward(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **_: object) -> SimpleNamespace:
        """As a transformers policy on packed sequences."""
        table = torch.tensor([[log(4), 0.0], [0.0, 0.0]], dtype=torch.float64)
        return SimpleNamespace(logits=table[input_ids][:, logits_to_keep])


def test_temperature_divides_the_logits() -> None:
    rollouts = [
        ScoredRollout(
            prompt_ids=(0,), response_ids=(0, 1), behaviour_logprobs=(-1.0, -1.0), score=0.0, temperature=temperature
        )
        for temperature in (1.0, 0.5, 2.0)
    ]
    policy: Any = _Bigram()
    found = response_logprobs(policy, micro_batch(pad_batch(rollouts), [0, 1, 2]))
    # 4 : 1 at temperature 1; 4^2 : 1 at 0.5; 4^0.5 : 1 at 2
    expected = [[4 / 5, 1 / 5], [16 / 17, 1 / 17], [2 / 3, 1 / 3]]
    torch.testing.assert_close(found[:, 1:].exp(), torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_learning_rate_rises_in_ten_steps_from_a_tenth_of_its_peak() -> None:
    model: Any = torch.nn.Linear(1, 1)
    optimizer = Optimizer(model, PPOConfig(warmup_steps=10), peak_learning_rate=1.0)
    rates = [optimizer.learning_rate(num_steps) for num_steps in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1000)]
    # 0.1 + 0.9 n / 10
    assert rates == pytest.approx([0.1, 0.19, 0.28, 0.37, 0.46, 0.55, 0.64, 0.73, 0.82, 0.91, 1.0, 1.0, 1.0])


def test_the_moving_average_keeps_0992_of_itself() -> None:
    weight = torch.tensor([1.0], dtype=torch.float64)
    ema = EMA([weight], decay=0.992)
    shadows = [ema.shadow[0].item()]
    for now in (2.0, 2.0, 0.0):
        weight.fill_(now)
        ema.update()
        shadows.append(ema.shadow[0].item())
    # 1; 0.992 + 0.008 * 2 = 1.008; 0.992 * 1.008 + 0.016 = 1.015936; 0.992 * 1.015936
    assert shadows == pytest.approx([1.0, 1.008, 1.015936, 1.007808512], abs=1e-12)


def test_the_defaults_are_the_papers() -> None:
    defaults = {
        "num_minibatches": 8,
        "clip_range": 0.2,
        "value_clip_range": 0.2,
        "kl_coef": 0.02,
        "kl_target_per_sequence_nats": None,
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "max_is_weight": 2.0,
        "whiten_rewards": False,
        "missing_eos_replace": None,
        "missing_eos_penalty": 0.0,
        "ptx_coef": 27.8,
        "ptx_examples_per_rollout": 8,
        "ema_decay": 0.992,
        "warmup_steps": 10,
        "advantage_estimator": "gae",
    }
    assert PPOConfig().model_dump(include=set(defaults)) == defaults
