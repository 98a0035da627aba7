"""What a policy does on held-out prompts and on text that no model was trained on."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import pack_rows
from onlinerlhf.learner.sampling import Sampled, Sampling, sample_responses
from onlinerlhf.learner.training.scoring import sequence_scores
from onlinerlhf.models.packed import pack, packed_token_logprobs
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.judge import judge
from onlinerlhf.world.users import UserPrompt

_MAX_TOKENS_A_PASS = 4096
_SAMPLED_TOGETHER = 128
_SEED_OF_ANSWERS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """A policy's answers to some prompts, one each, drawn at temperature 1."""

    texts: tuple[str, ...]
    gold_scores: tuple[float, ...]
    """By the judge, in [0, 1]."""
    reward_scores: tuple[float, ...]
    """By the reward model."""
    kl_nats: float | None
    """KL to the SFT policy (k1): nats a sequence, mean. None: the policy was asked in another way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that is compared between policies."""

    answers: Answers
    lm_loss: float
    """-log p of unseen pretraining text, nats a token, mean over all its tokens."""

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse."""
        found = value["answers"]
        answers = Answers(
            texts=tuple(found["texts"]),
            gold_scores=tuple(found["gold_scores"]),
            reward_scores=tuple(found["reward_scores"]),
            kl_nats=found["kl_nats"],
        )
        return cls(answers=answers, lm_loss=value["lm_loss"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Examiner:
    """Asks and judges any policy of one seed."""

    tokenizer: PromptTokenizer
    reward_model: PreTrainedModel
    reference: PreTrainedModel
    """The SFT policy, which KL is measured against."""
    texts: Sequence[Sequence[int]]
    """Unseen pretraining text, as tokens."""
    max_tokens: int

    def measure(self, policy: PreTrainedModel, prompts: Sequence[UserPrompt]) -> Measured:
        """Everything."""
        return Measured(answers=self.ask(policy, prompts), lm_loss=self.lm_loss(policy))

    def ask(self, policy: PreTrainedModel, prompts: Sequence[UserPrompt]) -> Answers:
        """Asked with the chat template, as every fine-tuned policy is."""
        encoded = [self.tokenizer.encode_prompt(prompt.text) for prompt in prompts]
        sampled = self._sample(policy, encoded)
        texts = [self.tokenizer.decode(response.token_ids) for response in sampled]
        return self._judged(prompts, texts, kl_nats=self._kl_nats(encoded, sampled))

    def ask_encoded(
        self,
        policy: PreTrainedModel,
        prompts: Sequence[UserPrompt],
        encoded: Sequence[Sequence[int]],
        *,
        stop: re.Pattern[str],
    ) -> Answers:
        """Asked in other words: `encoded` stands for the prompts. An answer ends where `stop` begins."""
        sampled = self._sample(policy, encoded)
        texts = [stop.split(self.tokenizer.decode(response.token_ids))[0] for response in sampled]
        return self._judged(prompts, texts, kl_nats=None)

    @torch.no_grad()
    def lm_loss(self, policy: PreTrainedModel) -> float:
        """Nats a token."""
        total, num_tokens = 0.0, 0
        for rows in pack_rows([len(text) for text in self.texts], max_tokens=_MAX_TOKENS_A_PASS):
            packed = pack([self.texts[row] for row in rows])
            logprobs = packed_token_logprobs(policy, packed, packed.position_ids[0] > 0)
            total -= float(logprobs.double().sum())
            num_tokens += len(logprobs)
        return total / num_tokens

    def _sample(self, policy: PreTrainedModel, encoded: Sequence[Sequence[int]]) -> list[Sampled]:
        how = Sampling(
            max_tokens=self.max_tokens, eos_token_id=self.tokenizer.eos_token_id, batch_size=_SAMPLED_TOGETHER
        )
        generator = torch.Generator().manual_seed(_SEED_OF_ANSWERS)
        return [response for (response,) in sample_responses(policy, encoded, how, generator=generator)]

    def _judged(self, prompts: Sequence[UserPrompt], texts: Sequence[str], *, kl_nats: float | None) -> Answers:
        return Answers(
            texts=tuple(texts),
            gold_scores=tuple(judge(prompt.task, text).score for prompt, text in zip(prompts, texts, strict=True)),
            reward_scores=self._reward_scores(prompts, texts),
            kl_nats=kl_nats,
        )

    def _reward_scores(self, prompts: Sequence[UserPrompt], texts: Sequence[str]) -> tuple[float, ...]:
        """As if the SFT policy had answered so, whatever words the question was put in."""
        sequences = [
            [*self.tokenizer.encode_prompt(prompt.text), *self.tokenizer.encode_text(text), self.tokenizer.eos_token_id]
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        return tuple(sequence_scores(self.reward_model, sequences, max_tokens=_MAX_TOKENS_A_PASS).tolist())

    @torch.no_grad()
    def _kl_nats(self, encoded: Sequence[Sequence[int]], sampled: Sequence[Sampled]) -> float:
        """log pi of the answers as they were drawn, less the reference's, summed over an answer, mean over answers."""
        total = sum(sum(response.logprobs) for response in sampled)
        sequences = [[*prompt, *response.token_ids] for prompt, response in zip(encoded, sampled, strict=True)]
        for rows in pack_rows([len(sequence) for sequence in sequences], max_tokens=_MAX_TOKENS_A_PASS):
            packed = pack([sequences[row] for row in rows])
            is_response = torch.zeros(sum(packed.lengths), dtype=torch.bool)
            for start, row in zip(packed.starts, rows, strict=True):
                is_response[start + len(encoded[row]) : start + len(sequences[row])] = True
            total -= float(packed_token_logprobs(self.reference, packed, is_response).double().sum())
        return total / len(sampled)
