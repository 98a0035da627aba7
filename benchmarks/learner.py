"""What the learner adds to its passes, what packing saves them, and what memory a step takes.

`learner_iteration_over_bare_passes`: a whole PPO iteration (moving average on, value network on, no pretraining mix)
over the passes that it cannot do without: forward and backward of policy and value network, and forward only of old
policy, old values and reference. The reference is packed as the learner packs, since padding is slower (see below);
its micro-batches are laid out beforehand, and it makes logits only where a response token is predicted. It has a plain
cross-entropy in place of PPO's losses, no optimizer, and nothing to undo.

`packing_speedup`: these passes padded over these passes packed. Padded as by a plain data loader: 16 random rows
(8 on a GPU), as long as their longest; no attention mask, since causal attention needs none, and logits at response
tokens only, so that the two differ in padding alone. At the worst these rows are as many tokens as a packed micro-batch
may have. Lengths are log-normal.

`learner_peak_memory_over_model_states`: what a step adds to the process at its peak, models included, over weights,
gradients and moments of policy and value network, moving average and reference. A step that fails is undone, so a copy
of weights, moments and average is a part of it.

With --device cuda: a policy and a value network of 1.5 billion parameters each, in bf16 with float32 master weights
(states of 60 GB, and 42 GB to undo a step with);
and also tokens a second and model FLOPs utilisation of a whole iteration, counted as 6 N FLOPs a token for each of the
two networks that are updated and 2 N for each of the three passes without a gradient.
"""

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from claims import Claim
from learner_passes import Models, packed_iteration, padded_iteration
from torch import distributed
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, PreTrainedModel, Qwen3Config

from onlinerlhf.algorithms.batching import ScoredRollout, pad_batch
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.sharding import alone, shard
from onlinerlhf.models.policy import prepared

PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
"""Dense bf16, a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Sizes of what is measured."""

    device: str
    model: Qwen3Config
    memory_model: Qwen3Config
    """Larger where activations would otherwise hide the states."""
    num_rollouts: int
    mean_tokens: float
    max_tokens: int
    rows_per_padded_micro_batch: int
    num_rounds: int

    @property
    def config(self) -> RecipeConfig:
        """Of PPO."""
        return RecipeConfig.model_validate(
            {
                "policy_dir": "unused",
                "reward_dir": "unused",
                "device": self.device,
                "compute_dtype": "float32" if self.device == "cpu" else "bfloat16",
                "num_minibatches": 4,
                "micro_batch_tokens": self.rows_per_padded_micro_batch * self.max_tokens,
                "learning_rate": 1e-5,
                "value_learning_rate": 1e-5,
            }
        )


def main() -> list[Claim]:
    """Measure; the ratios are of the medians of alternating rounds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=chosen, choices=("cpu", "cuda"))
    setup = _setup(parser.parse_args().device)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    try:
        return [_memory(setup), _packing(setup), *_iteration(setup)]
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _setup(device: str) -> Setup:
    if device == "cpu":
        small = _qwen3(vocab_size=1024, hidden_size=192, num_layers=4, num_heads=6, head_dim=32)
        larger = _qwen3(vocab_size=4096, hidden_size=384, num_layers=6, num_heads=6, head_dim=64)
        return Setup(
            device=device,
            model=small,
            memory_model=larger,
            num_rollouts=128,
            mean_tokens=60,
            max_tokens=512,
            rows_per_padded_micro_batch=16,
            num_rounds=5,
        )
    large = _qwen3(vocab_size=151_936, hidden_size=2048, num_layers=24, num_heads=16, head_dim=128)
    return Setup(
        device=device,
        model=large,
        memory_model=large,
        num_rollouts=256,
        mean_tokens=300,
        max_tokens=1024,
        rows_per_padded_micro_batch=8,
        num_rounds=5,
    )


def _qwen3(*, vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, head_dim: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads // 2,
        head_dim=head_dim,
        max_position_embeddings=2048,
        tie_word_embeddings=vocab_size > 100_000,
        num_labels=1,
    )


def _iteration(setup: Setup) -> list[Claim]:
    """A whole iteration over its bare passes; on a GPU its speed as well."""
    models, ppo = _ppo(setup.model, setup)
    rollouts = _rollouts(setup)
    bare = packed_iteration(pad_batch(rollouts, device=setup.device), setup.config)
    steps, bares = _alternate(setup, lambda: ppo.step(rollouts), lambda: bare.run(models))
    ratio = steps / bares
    claims = [
        Claim(name="learner_iteration_over_bare_passes", value=ratio, unit="ratio", goal="<=1.15", ok=ratio <= 1.15)
    ]
    return claims if setup.device == "cpu" else [*claims, *_speed(models, rollouts, steps)]


def _speed(models: Models, rollouts: Sequence[ScoredRollout], seconds: float) -> list[Claim]:
    num_tokens = sum(len(rollout.prompt_ids) + len(rollout.response_ids) for rollout in rollouts)
    policy, value = (
        sum(parameter.numel() for parameter in model.parameters()) for model in (models.policy, models.value)
    )
    flops_per_token = 6 * (policy + value) + 2 * (2 * policy + value)
    rate = num_tokens / seconds
    claims = [Claim(name="ppo_update_tokens_per_second", value=rate, unit="tokens/s", goal="reported", ok=True)]
    name = torch.cuda.get_device_name()
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    if peak is None:
        print(f"no peak is known of {name}: its utilisation is not reported", file=sys.stderr)
        return claims
    used = flops_per_token * rate / peak
    return [*claims, Claim(name="ppo_update_mfu", value=used, unit="share", goal="reported", ok=True)]


def _packing(setup: Setup) -> Claim:
    """The same passes padded over packed."""
    dtype = torch.float32 if setup.device == "cpu" else torch.bfloat16
    models = Models(*(model.to(setup.device, dtype) for model in _models(setup.model)))
    batch = pad_batch(_rollouts(setup), device=setup.device)
    packed = packed_iteration(batch, setup.config)
    padded = padded_iteration(batch, setup.config, num_rows=setup.rows_per_padded_micro_batch)
    padded_seconds, packed_seconds = _alternate(setup, lambda: padded.run(models), lambda: packed.run(models))
    ratio = padded_seconds / packed_seconds
    return Claim(name="packing_speedup", value=ratio, unit="ratio", goal=">=1.5", ok=ratio >= 1.5)


def _memory(setup: Setup) -> Claim:
    """First of all, while the process is small."""
    rollouts = _rollouts(setup)[: setup.num_rollouts // 2]
    warm = _qwen3(
        vocab_size=setup.memory_model.vocab_size,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        head_dim=16,
    )
    # What kernels and allocators take once is nobody's state.
    _ppo(warm, setup)[1].step(rollouts)
    before = _memory_now(setup.device)
    models, ppo = _ppo(setup.memory_model, setup)
    ppo.step(rollouts)
    _forget_peak(setup.device)
    ppo.step(rollouts)
    policy, reference, value = (
        sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        for model in (models.policy, models.reference, models.value)
    )
    # Weights, gradients, two moments; and the policy's moving average.
    states = 5 * policy + 4 * value + reference
    ratio = (_peak_memory(setup.device) - before) / states
    return Claim(name="learner_peak_memory_over_model_states", value=ratio, unit="ratio", goal="reported", ok=True)


def _memory_now(device: str) -> int:
    return torch.cuda.memory_allocated() if device == "cuda" else _status_bytes("VmRSS")


def _peak_memory(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status_bytes("VmHWM")


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


def _ppo(model: Qwen3Config, setup: Setup) -> tuple[Models, PPO]:
    config = setup.config
    ranks = alone(config)
    models = Models(*(shard(each, config, ranks) for each in _models(model)))
    ppo = PPO(policy=models.policy, reference=models.reference, value=models.value, config=config, ranks=ranks)
    return models, ppo


def _models(config: Qwen3Config) -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedModel]:
    policy, reference = (AutoModelForCausalLM.from_config(config) for _ in range(2))
    return prepared(policy), prepared(reference), prepared(AutoModelForTokenClassification.from_config(config))


def _rollouts(setup: Setup) -> list[ScoredRollout]:
    """Lengths log-normal, as those of real traffic are: many short ones and a few of nearly any length."""
    draw = random.Random(0)
    sigma = 1.0
    location = math.log(setup.mean_tokens) - sigma**2 / 2

    def one() -> ScoredRollout:
        length = min(max(round(draw.lognormvariate(location, sigma)), 4), setup.max_tokens)
        tokens = [draw.randrange(setup.model.vocab_size) for _ in range(length)]
        start = draw.randint(1, length // 2)
        return ScoredRollout(
            prompt_ids=tokens[:start],
            response_ids=tokens[start:],
            behaviour_logprobs=[-math.log(setup.model.vocab_size)] * (length - start),
            score=draw.gauss(0, 1),
        )

    return [one() for _ in range(setup.num_rollouts)]


def _alternate(setup: Setup, one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, in alternating rounds after a first one to warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(setup.num_rounds + 1):
        for call, found in zip((one, other), seconds, strict=True):
            start = time.perf_counter()
            call()
            if setup.device == "cuda":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - start)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


if __name__ == "__main__":
    for claim in main():
        print(claim)
