"""A PPO step's batch, made in this process: prompts -> responses of the policy as it is now -> scores.

Which prompts a step takes and what is drawn for them are functions of the step's number and the seed, so the number is
all that a training has to remember of them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import torch
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import ScoredRollout
from onlinerlhf.core.errors import NonFiniteLoss
from onlinerlhf.learner.sampling import Sampled, Sampling, sample_responses
from onlinerlhf.learner.training.data import PromptRow
from onlinerlhf.learner.training.scoring import sequence_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """One step's scored rollouts, and how long they took."""

    rollouts: list[ScoredRollout]
    sampling_seconds: float
    scoring_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSource:
    """Makes any step's batch."""

    prompts: Sequence[PromptRow]
    reward_model: PreTrainedModel
    sampling: Sampling
    prompts_per_step: int
    micro_batch_tokens: int
    """Most tokens of one pass of the reward model."""
    seed: int

    def make(self, policy: PreTrainedModel, step: int) -> Episodes:
        """The batch of a step (from 0). Raises NonFiniteLoss where logits or scores are not finite."""
        began = monotonic()
        prompts = [row.ids for row in self.step_prompts(step)]
        generator = torch.Generator(device=policy.device)
        generator.manual_seed(random.Random(f"responses/{self.seed}/{step}").getrandbits(63))
        groups = sample_responses(policy, prompts, self.sampling, generator=generator)
        sampled = monotonic()
        scores = iter(self._scores(prompts, groups))
        rollouts = [
            self._rollout(prompt, response, next(scores), group=place)
            for place, (prompt, responses) in enumerate(zip(prompts, groups, strict=True))
            for response in responses
        ]
        return Episodes(rollouts=rollouts, sampling_seconds=sampled - began, scoring_seconds=monotonic() - sampled)

    def step_prompts(self, step: int) -> list[PromptRow]:
        """The prompts of a step: the next of endless epochs, each in another order."""
        count = len(self.prompts)
        places = range(step * self.prompts_per_step, (step + 1) * self.prompts_per_step)
        orders = {epoch: self._order(epoch) for epoch in {place // count for place in places}}
        return [self.prompts[orders[place // count][place % count]] for place in places]

    def _order(self, epoch: int) -> list[int]:
        return random.Random(f"prompts/{self.seed}/{epoch}").sample(range(len(self.prompts)), len(self.prompts))

    def _scores(self, prompts: Sequence[list[int]], groups: Sequence[Sequence[Sampled]]) -> list[float]:
        """Of each response, in order."""
        pairs = ((prompt, response) for prompt, group in zip(prompts, groups, strict=True) for response in group)
        sequences = [prompt + response.token_ids for prompt, response in pairs]
        scores = sequence_scores(self.reward_model, sequences, max_tokens=self.micro_batch_tokens)
        if not bool(scores.isfinite().all()):
            raise NonFiniteLoss("not finite: the reward model's scores")
        return [float(score) for score in scores.tolist()]

    def _rollout(self, prompt: Sequence[int], response: Sampled, score: float, *, group: int) -> ScoredRollout:
        return ScoredRollout(
            prompt_ids=prompt,
            response_ids=response.token_ids,
            behaviour_logprobs=response.logprobs,
            score=score,
            temperature=self.sampling.temperature,
            is_finished=response.is_finished,
            group=group,
        )
