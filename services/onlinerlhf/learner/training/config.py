"""Settings of one offline training: defaults < TOML file < key=value from the command line. Unknown keys fail."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import torch
from pydantic import Field, ValidationError

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.runtime.config import Section

# These change neither a weight nor a choice, so a training may go on with other values.
_OF_NO_CONSEQUENCE = {"checkpoint_every", "keep_checkpoints", "wandb_project"}
DEVICES: Final = r"^(auto|cpu|cuda(:\d+)?)$"


class Settings(Section):
    """What every offline training has, whatever it trains."""

    checkpoint_every: int = Field(default=100, ge=1)
    """Steps."""
    keep_checkpoints: int = Field(default=2, ge=1)
    wandb_project: str | None = None
    """Also log to this Weights & Biases project, as WANDB_PROJECT does."""

    def identity(self) -> dict[str, Any]:
        """The settings that make two trainings differ."""
        return self.model_dump(mode="json", exclude=_OF_NO_CONSEQUENCE)

    def replaced(self, **changes: Any) -> Self:
        """A checked copy with other values."""
        return type(self).model_validate({**self.model_dump(), **changes})


class TrainingConfig(Settings):
    """What the stages that go over their data by epochs share. An epoch ends with a checkpoint, too."""

    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=32, ge=1)
    """Elements (demonstrations, rankings) of one optimizer step."""
    learning_rate: float = Field(default=9.65e-6, gt=0)
    """Peak."""
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    """Of all steps, over which the learning rate rises linearly to its peak."""
    final_share: float = Field(default=0.1, ge=0, le=1)
    """Of the peak, where the cosine ends."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    micro_batch_tokens: int = Field(default=8192, ge=1)
    """Most tokens of one pass; bounds memory and does not change the result but for rounding."""
    max_prompt_tokens: int = Field(default=1000, ge=1)
    max_response_tokens: int = Field(default=1000, ge=1)
    """The end token counts."""
    seed: int = 0
    device: str = Field(default="auto", pattern=DEVICES)
    """auto: a GPU if there is one."""

    @property
    def torch_device(self) -> torch.device:
        """Where to train. ConfigError if it is not there."""
        return found_device(self.device)


def found_device(name: str) -> torch.device:
    """What a `device` of offline training stands for. ConfigError if it is not there."""
    has_cuda = torch.cuda.is_available()
    if name.startswith("cuda") and not has_cuda:
        raise ConfigError(f"device is {name}, but torch finds no GPU; leave it at auto or set cpu")
    return torch.device(("cuda" if has_cuda else "cpu") if name == "auto" else name)


C = TypeVar("C", bound=Settings)


def load_training_config(model: type[C], *, path: Path | None, settings: Sequence[str]) -> C:
    """The settings of a TOML file without sections, and of "key=value" over it. ConfigError names the key."""
    from_file = _read(path) if path else {}
    from_line = dict(_setting(setting) for setting in settings)
    try:
        return model.model_validate({**from_file, **from_line})
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False, include_context=False):
            key = ".".join(str(part) for part in problem["loc"]) or "settings"
            known = ", ".join(sorted(model.model_fields))
            what = f"unknown key; there are: {known}" if problem["type"] == "extra_forbidden" else problem["msg"]
            problems.append(f"{key}: {what} ({'--set' if key in from_line else path or 'defaults'})")
        raise ConfigError("; ".join(problems)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _setting(text: str) -> tuple[str, Any]:
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set takes key=value, got {text!r}")
    if raw[:1] in ("[", "{"):
        try:
            return key.strip(), json.loads(raw)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--set {key.strip()}: not JSON: {error}") from None
    return key.strip(), raw
