"""Samples responses from a model in this process, without a serving engine.

Prompts of like length share a batch; they are padded on the left so that all of them end in the same column, and
positions count real tokens only. A prompt is read once however many responses it gets; a response that has ended leaves
the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from onlinerlhf.core.errors import NonFiniteLoss
from onlinerlhf.models.tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A response with its evidence."""

    token_ids: list[int]
    """The end token last, unless it was cut off."""
    logprobs: list[float]
    """log pi(token) of each, nats, of the distribution it was drawn from."""
    is_finished: bool
    """Whether the model ended it; else it was cut off at the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How responses are drawn."""

    max_tokens: int
    """Of a response, the end token counted."""
    eos_token_id: int
    num_responses: int = 1
    """To each prompt."""
    temperature: float = 1.0
    """Divides the logits."""
    batch_size: int = 256
    """Most responses that are sampled at once."""


def sample(
    model: PreTrainedModel,
    tokenizer: PromptTokenizer,
    prompts: Sequence[list[int]],
    *,
    max_tokens: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """One response a prompt at temperature 1, all in one batch; each has its end token unless it ran out of room."""
    how = Sampling(max_tokens=max_tokens, eos_token_id=tokenizer.eos_token_id, batch_size=len(prompts))
    return [response.token_ids for (response,) in _sample_batch(model, prompts, how, generator)]


def sample_responses(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], how: Sampling, *, generator: torch.Generator
) -> list[list[Sampled]]:
    """Responses to each prompt, in the order of the prompts.

    What is drawn depends on the model, the prompts, `how` and the generator (on the model's device), on nothing else.
    Raises NonFiniteLoss where the model's logits are not finite.
    """
    by_length = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    at_once = max(1, how.batch_size // how.num_responses)
    sampled: dict[int, list[Sampled]] = {}
    for start in range(0, len(prompts), at_once):
        places = by_length[start : start + at_once]
        batch = _sample_batch(model, [prompts[place] for place in places], how, generator)
        sampled.update(zip(places, batch, strict=True))
    return [sampled[place] for place in range(len(prompts))]


@torch.no_grad()
def _sample_batch(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], how: Sampling, generator: torch.Generator
) -> list[list[Sampled]]:
    ids, mask = _padded_left(prompts, device=model.device)  # [P, T]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = _next_logits(model, ids, mask, positions, cache)  # [P, V]
    if how.num_responses > 1:
        cache.batch_repeat_interleave(how.num_responses)
        logits, mask, positions = (x.repeat_interleave(how.num_responses, dim=0) for x in (logits, mask, positions))
    tokens: list[list[int]] = [[] for _ in range(len(logits))]
    logprobs: list[list[float]] = [[] for _ in range(len(logits))]
    rows = list(range(len(logits)))
    for num_drawn in range(1, how.max_tokens + 1):
        drawn, drawn_logprobs = _draw(logits, how.temperature, generator)  # [B, 1], [B, 1]
        for row, token, logprob in zip(rows, drawn[:, 0].tolist(), drawn_logprobs[:, 0].tolist(), strict=True):
            tokens[row].append(token)
            logprobs[row].append(logprob)
        going = (drawn[:, 0] != how.eos_token_id).nonzero()[:, 0]
        if len(going) == 0 or num_drawn == how.max_tokens:
            break
        if len(going) < len(rows):
            rows = [rows[index] for index in going.tolist()]
            cache.batch_select_indices(going)
            drawn, mask, positions = drawn[going], mask[going], positions[going]
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        logits = _next_logits(model, drawn, mask, positions, cache)
    responses = [
        Sampled(token_ids=ids, logprobs=numbers, is_finished=ids[-1] == how.eos_token_id)
        for ids, numbers in zip(tokens, logprobs, strict=True)
    ]
    return [responses[start : start + how.num_responses] for start in range(0, len(responses), how.num_responses)]


def _next_logits(model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """Float32 logits of the token after the last column, the cache brought up to it. [B, T] -> [B, V]."""
    return model(  # type: ignore[no-any-return]
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1].float()  # fmt: skip


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token a row, and its logprob. [B, V] -> [B, 1] int64, [B, 1] float32 nats."""
    if not bool(logits.isfinite().all()):
        raise NonFiniteLoss("not finite while sampling: the policy's logits")
    scaled = logits / temperature
    drawn = torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator)
    return drawn, scaled.gather(1, drawn) - scaled.logsumexp(dim=-1, keepdim=True)


def _padded_left(prompts: Sequence[Sequence[int]], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (0 where there is none) and which are real. Both [P, T] int64."""
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)
