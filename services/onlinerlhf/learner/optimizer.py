"""AdamW over one model, with gradient clipping, warm-up and a way back."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.learner.ranks import whole
from onlinerlhf.learner.tensors import sharded_like


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model's weights and its optimizer's state at one moment."""

    parameters: list[Tensor]
    optimizer: dict[str, Any]


class Optimizer:
    """AdamW over a model's trainable parameters."""

    def __init__(self, model: PreTrainedModel, config: PPOConfig, *, peak_learning_rate: float) -> None:
        self.model = model
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.adamw = torch.optim.AdamW(
            self.parameters,
            lr=peak_learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._peak = peak_learning_rate
        self._config = config

    def learning_rate(self, num_steps: int) -> float:
        """Rises over the first `warmup_steps` PPO steps from a tenth of the peak, linearly; then the peak."""
        warmed = min(num_steps / self._config.warmup_steps, 1.0) if self._config.warmup_steps else 1.0
        return self._peak * (0.1 + 0.9 * warmed)

    def clip_gradients(self) -> float:
        """Scale all gradients together to a norm of at most `max_grad_norm`; returns the norm they had."""
        return float(whole(torch.nn.utils.clip_grad_norm_(self.parameters, self._config.max_grad_norm)))

    def drop_gradients(self) -> None:
        """Forget what was gathered."""
        self.adamw.zero_grad(set_to_none=True)

    def step(self, num_steps: int) -> float:
        """Apply and clear the gradients, at the learning rate after `num_steps` PPO steps. Returns that rate."""
        learning_rate = self.learning_rate(num_steps)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return learning_rate

    def snapshot(self) -> Snapshot:
        """A copy that later steps do not touch."""
        return Snapshot([parameter.detach().clone() for parameter in self.parameters], deepcopy(self._state()))

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a snapshot; gradients gathered meanwhile are dropped."""
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, snapshot.parameters, strict=True):
                parameter.copy_(saved)
        self.adamw.load_state_dict(snapshot.optimizer)
        self.adamw.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state as named tensors: `<parameter>.<moment>`. Empty before the first step."""
        return {
            f"{self.names[index]}.{key}": tensor
            for index, moments in self._state()["state"].items()
            for key, tensor in moments.items()
        }

    def refuse_others(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises KeyError for names that `load_tensors` would not know, or that it would lack."""
        for key in tensors:
            if key.rsplit(".", 1)[0] not in self.names:
                raise KeyError(key)
        num_found = len({key.rsplit(".", 1)[0] for key in tensors})
        if tensors and num_found != len(self.names):
            raise KeyError(f"optimizer state for {num_found} of {len(self.names)} parameters")

    def load_tensors(self, tensors: Mapping[str, Tensor], spread: Callable[[Tensor], Tensor]) -> None:
        """The inverse of `tensors`; `spread` makes each whole on every rank. Raises KeyError as `refuse_others`."""
        self.refuse_others(tensors)
        state: dict[int, dict[str, Tensor]] = {}
        places = {name: index for index, name in enumerate(self.names)}
        for key, given in tensors.items():
            name, moment = key.rsplit(".", 1)
            index, tensor = places[name], spread(given)
            is_count = tensor.ndim == 0 and self.parameters[index].ndim > 0
            laid_out = tensor.clone() if is_count else sharded_like(tensor, self.parameters[index]).clone()
            state.setdefault(index, {})[moment] = laid_out
        self.adamw.load_state_dict({**self._state(), "state": state})

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.adamw.state_dict()
        return state
