"""Passes as anybody would write them, padded on the right: what the packed passes are held against."""

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from onlinerlhf.models.scalar import backbone, score_head


def token_logprobs(
    model: PreTrainedModel,
    input_ids: torch.Tensor,  # [B, T]
    attention_mask: torch.Tensor,  # [B, T]
    *,
    temperature: float = 1.0,
) -> torch.Tensor:  # [B, T-1]
    """log pi(input_ids[:, t+1] | input_ids[:, :t+1]) in nats; without meaning where the next token is padding."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1].float()
    flat = cross_entropy((logits / temperature).flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
    return -flat.view(input_ids.shape[0], -1)


def token_values(
    model: PreTrainedModel,
    input_ids: torch.Tensor,  # [B, T]
    attention_mask: torch.Tensor,  # [B, T]
) -> torch.Tensor:  # [B, T]
    """The value after each token; without meaning at padding."""
    hidden = backbone(model)(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    return score_head(model)(hidden).squeeze(-1).float()  # type: ignore[no-any-return]
