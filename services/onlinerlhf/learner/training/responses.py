"""The objective of supervised fine-tuning, and how good a model's own responses are."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.learner.sampling import Sampling, sample_responses
from onlinerlhf.learner.training.data import Example
from onlinerlhf.learner.training.objective import Objective
from onlinerlhf.learner.training.scoring import sequence_scores
from onlinerlhf.models.packed import pack, packed_token_logprobs
from onlinerlhf.models.tokenizer import PromptTokenizer


def response_objective(model: PreTrainedModel) -> Objective[Example]:
    """-log p(response | prompt) in nats, mean over the response tokens of the whole batch. Prompts are not learned."""

    def loss(examples: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        packed = pack([example.prompt + example.response for example in examples], device=model.device)
        sides = [[False] * len(example.prompt) + [True] * len(example.response) for example in examples]
        is_response = torch.tensor([mark for side in sides for mark in side], device=model.device)
        return -packed_token_logprobs(model, packed, is_response).sum(), {}

    return Objective(
        num_tokens=lambda example: example.num_tokens, weight=lambda example: float(len(example.response)), loss=loss
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseScorer:
    """Samples a response to each of some prompts, the same draws each time, and has the reward model score it."""

    reward_model: PreTrainedModel
    tokenizer: PromptTokenizer
    prompts: Sequence[list[int]]
    max_response_tokens: int
    sampled_together: int
    micro_batch_tokens: int
    seed: int

    def score(self, policy: PreTrainedModel) -> float:
        """Mean reward score of the policy's responses."""
        generator = torch.Generator(device=policy.device).manual_seed(self.seed)
        how = Sampling(
            max_tokens=self.max_response_tokens,
            eos_token_id=self.tokenizer.eos_token_id,
            batch_size=self.sampled_together,
        )
        sampled = sample_responses(policy, self.prompts, how, generator=generator)
        sequences = [prompt + response.token_ids for prompt, (response,) in zip(self.prompts, sampled, strict=True)]
        return float(sequence_scores(self.reward_model, sequences, max_tokens=self.micro_batch_tokens).mean())


def some_prompts(examples: Sequence[Example], count: int, *, seed: int) -> list[list[int]]:
    """At most `count` different prompts of these examples."""
    different = sorted({tuple(example.prompt) for example in examples})
    chosen = random.Random(f"prompts/{seed}").sample(different, min(count, len(different)))
    return [list(prompt) for prompt in chosen]
