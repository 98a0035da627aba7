"""Samples responses from a model in this process, without a serving engine."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from onlinerlhf.models.tokenizer import PromptTokenizer


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PromptTokenizer,
    prompts: Sequence[list[int]],
    *,
    max_tokens: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """One response a prompt at temperature 1, each with its end token unless it ran out of room.

    Prompts are padded on the left so that all of them end in the same column; positions count real tokens only.
    """
    length = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    responses: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    for _ in range(max_tokens):
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        ).logits  # fmt: skip
        tokens = torch.multinomial(logits[:, -1].float().softmax(dim=-1), 1, generator=generator)  # [B, 1]
        for row, token in zip(rows, tokens[:, 0].tolist(), strict=True):
            responses[row].append(token)
        going = (tokens[:, 0] != tokenizer.eos_token_id).nonzero()[:, 0]
        if len(going) == 0:
            break
        rows = [rows[index] for index in going.tolist()]
        cache.batch_select_indices(going)
        ids, positions = tokens[going], positions[going, -1:] + 1
        mask = torch.cat([mask[going], torch.ones(len(going), 1, dtype=mask.dtype)], dim=1)
    return responses
