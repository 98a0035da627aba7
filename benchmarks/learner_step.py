"""A whole PPO step over the bare passes that it cannot do without, on the same tokens.

Reference: forward and backward of policy and value network, and forward only of the old policy, the old values and the
reference policy, in the same micro-batches, with a plain cross-entropy in place of PPO's losses and no optimizer.
"""

import random
import statistics
import time
from collections.abc import Callable

import torch
from claims import Claim
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, PreTrainedModel, Qwen3Config

from onlinerlhf.algorithms.batching import PaddedBatch, ScoredRollout, length_buckets, pad_batch, split_minibatches
from onlinerlhf.learner.forward import micro_batch
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_config import PPOConfig

NUM_ROLLOUTS, NUM_MINIBATCHES, NUM_ROUNDS = 128, 4, 5


def main() -> list[Claim]:
    """Measure in alternating rounds; the ratio is of the medians."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    policy, reference, value = _policy(), _policy(), _value()
    config = PPOConfig(num_minibatches=NUM_MINIBATCHES, learning_rate=1e-5, value_learning_rate=1e-5)
    ppo = PPO(policy=policy, reference=reference, value=value, config=config)
    rollouts = _rollouts(random.Random(0))
    batch = pad_batch(rollouts)

    def step() -> None:
        ppo.step(rollouts)

    def bare() -> None:
        _bare_passes(batch, policy, reference, value, config)

    # Once to warm up.
    step()
    bare()
    steps, bares = [], []
    for _ in range(NUM_ROUNDS):
        steps.append(_seconds(step))
        bares.append(_seconds(bare))
    ratio = statistics.median(steps) / statistics.median(bares)
    return [Claim(name="learner_step_over_bare_passes", value=ratio, unit="ratio", goal="<=1.15", ok=ratio <= 1.15)]


def _bare_passes(
    batch: PaddedBatch, policy: PreTrainedModel, reference: PreTrainedModel, value: PreTrainedModel, config: PPOConfig
) -> None:
    with torch.inference_mode():
        for all_rows in length_buckets(batch.lengths, max_tokens=config.micro_batch_tokens):
            input_ids = micro_batch(batch, all_rows).input_ids
            for model in (policy, reference, value):
                model(input_ids, use_cache=False)
    for rows in split_minibatches(len(batch), config.num_minibatches):
        widths = [batch.lengths[row] for row in rows]
        for bucket in length_buckets(widths, max_tokens=config.micro_batch_tokens):
            input_ids = micro_batch(batch, [rows[place] for place in bucket]).input_ids
            logits = policy(input_ids, use_cache=False).logits
            cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
            value(input_ids, use_cache=False).logits.square().mean().backward()
        policy.zero_grad(set_to_none=True)
        value.zero_grad(set_to_none=True)


def _config(**extra: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=1024, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=3, head_dim=32, max_position_embeddings=512, tie_word_embeddings=False, **extra,
    )  # fmt: skip


def _policy() -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(_config())
    return model.eval()


def _value() -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForTokenClassification.from_config(_config(num_labels=1))
    return model.eval()


def _rollouts(rng: random.Random) -> list[ScoredRollout]:
    def one() -> ScoredRollout:
        prompt = [rng.randrange(1024) for _ in range(rng.randint(10, 40))]
        response = [rng.randrange(1024) for _ in range(rng.randint(4, 48))]
        return ScoredRollout(
            prompt_ids=prompt,
            response_ids=response,
            behaviour_logprobs=[-6.9] * len(response),
            score=rng.gauss(0, 1),
        )

    return [one() for _ in range(NUM_ROLLOUTS)]


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    for claim in main():
        print(claim)
