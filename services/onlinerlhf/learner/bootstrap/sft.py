"""Stage 2: supervised fine-tuning on demonstrations."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from onlinerlhf.learner.bootstrap.fit import fit, pad_right
from onlinerlhf.learner.bootstrap.progress import Progress
from onlinerlhf.learner.bootstrap.sizes import Size
from onlinerlhf.models.policy import token_logprobs
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.demonstrations import demonstrations


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A prompt and a response, as tokens. The response ends with the end token."""

    prompt: list[int]
    response: list[int]


def examples(tokenizer: PromptTokenizer, count: int, *, seed: int) -> list[Example]:
    """Demonstrations as tokens."""
    return [
        Example(
            prompt=tokenizer.encode_prompt(demonstration.task.prompt),
            response=[*tokenizer.encode_text(demonstration.answer), tokenizer.eos_token_id],
        )
        for demonstration in itertools.islice(demonstrations(seed=seed), count)
    ]


def response_weights(
    batch: Sequence[Example],
    length: int,
) -> torch.Tensor:  # [B, T-1]
    """1 where the next token belongs to the response, else 0."""
    weights = torch.zeros(len(batch), length - 1)
    for row, example in enumerate(batch):
        begin = len(example.prompt) - 1
        weights[row, begin : begin + len(example.response)] = 1
    return weights


def finetune(model: PreTrainedModel, tokenizer: PromptTokenizer, size: Size, *, seed: int, progress: Progress) -> float:
    """Trains on the responses only, prompts masked. Returns the final loss in nats a response token."""
    data = examples(tokenizer, size.num_demonstrations, seed=seed)

    def loss_of(batch: list[Example]) -> torch.Tensor:
        ids, mask = pad_right([example.prompt + example.response for example in batch], tokenizer.pad_token_id)
        weights = response_weights(batch, ids.shape[1])
        return -(token_logprobs(model, ids, mask) * weights).sum() / weights.sum()

    return fit(
        model,
        _batches(data, size, seed=seed),
        loss_of,
        num_steps=num_steps(size),
        rates=size.sft_rates,
        progress=progress,
    )


def num_steps(size: Size) -> int:
    """Optimiser steps of this stage."""
    return size.sft_epochs * (size.num_demonstrations // size.sft_batch)


def _batches(data: list[Example], size: Size, *, seed: int) -> Iterator[list[Example]]:
    rng = random.Random(seed)
    for _ in range(size.sft_epochs):
        rng.shuffle(data)
        for at in range(0, len(data) - size.sft_batch + 1, size.sft_batch):
            yield data[at : at + size.sft_batch]
