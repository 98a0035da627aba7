"""Models that give numbers: the reward model (one a sequence) and the value network (one a token).

Both are ordinary transformers classes, so a directory trained elsewhere works. `score_offset` in the reward model's
config, 0 if absent, is subtracted from its output, so that demonstrations score 0 on average.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.models.policy import load_complete, prepared


def load_reward_model(path: Path | str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A sequence-classification model with one output."""
    model = load_complete(AutoModelForSequenceClassification, path, dtype=dtype)
    if model.config.num_labels != 1:
        raise ConfigError(f"{path} has {model.config.num_labels} outputs; a reward model has 1")
    return prepared(model)


def reward_scores(
    model: PreTrainedModel,
    input_ids: torch.Tensor,  # [B, T]
    attention_mask: torch.Tensor,  # [B, T]
) -> torch.Tensor:  # [B]
    """One score a sequence, float32, read at the last real token.

    The last token is found by the attention mask (padding on the right), never by comparing ids with the padding
    token, which may be the end token itself.
    """
    hidden = backbone(model)(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    last = attention_mask.sum(dim=1) - 1
    states = hidden[torch.arange(len(last), device=hidden.device), last]
    return score_head(model)(states).squeeze(-1).float() - score_offset(model)  # type: ignore[no-any-return]


def score_offset(model: PreTrainedModel) -> float:
    """What is subtracted from the reward model's raw output."""
    return float(getattr(model.config, "score_offset", 0.0))


def value_model_from_reward(path: Path | str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A value network that starts as the reward model: same backbone and head, own parameters, offset in the bias."""
    reward = load_reward_model(path, dtype=dtype)
    config = type(reward.config)(**reward.config.to_dict())
    config.architectures = None
    config.num_labels = 1
    value: Any = AutoModelForTokenClassification.from_config(config, dtype=dtype)
    backbone(value).load_state_dict(backbone(reward).state_dict())
    source, head = score_head(reward), score_head(value)
    with torch.no_grad():
        head.weight.copy_(source.weight)
        head.bias.fill_(-score_offset(reward))
        if source.bias is not None:
            head.bias.add_(source.bias)
    return prepared(value)


def backbone(model: PreTrainedModel) -> Any:
    """The model without its head."""
    return model.base_model


def score_head(model: PreTrainedModel) -> Any:
    """The linear layer from hidden states to the one output; families name it differently."""
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, torch.nn.Linear):
            return head
    raise ConfigError(f"{type(model).__name__} has no linear head named score or classifier")
