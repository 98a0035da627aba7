"""Settings of the gateway room: section [gateway]."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from onlinerlhf.runtime.config import ServiceConfig


class GatewayConfig(ServiceConfig):
    """What prompts are taken, how many, and how they are answered."""

    model_dir: Path
    """A transformers directory; only its tokenizer and chat template are read."""
    rollout_target: str
    """gRPC target of the rollout workers that answer users; several as `ipv4:127.0.0.1:1,127.0.0.1:2`."""

    max_prompt_bytes: int = Field(default=32_768, ge=1)
    max_prompt_tokens: int = Field(default=1_000, ge=1)
    """Of the rendered prompt, chat template included."""
    prompts_per_user: int = Field(default=200, ge=1)
    """Admitted prompts of one user in a run; later ones are refused."""
    idempotency_seconds: int = Field(default=86_400, ge=1)
    """How long a retry with the same idempotency key gets the same receipt."""
    hash_key: SecretStr | None = Field(default=None, min_length=16, max_length=64)
    """Keys the hashes of texts, users and idempotency keys: 16 to 64 ASCII characters.

    Unset: made at random once and kept in the run's Redis.
    """
    admit_wait_seconds: float = Field(default=10.0, gt=0)
    """How long SubmitPrompt waits for Redis, within the call's own deadline."""
    admit_wait_when_answering_seconds: float = Field(default=0.5, gt=0, le=1.0)
    """How long an answer may be held up by Redis; then it goes on, unlearned."""
    max_concurrent_per_stream: int = Field(default=32, ge=1)
    """Prompts of one SubmitPrompts stream in work at a time."""

    pool_bound: int = Field(default=10_000, ge=1)
    """Prompts that may wait in the pool for their first pass; at the bound new ones are refused."""
    prompts_bound: int = Field(default=256, ge=1)
    """Backlog to which the feeder tops up [prompts]."""
    max_epochs: int = Field(default=1, ge=1)
    """Passes over a prompt; later passes only while no new prompt waits."""
    feed_poll_seconds: float = Field(default=0.25, gt=0)

    default_max_tokens: int = Field(default=256, ge=1)
    max_response_tokens: int = Field(default=1_024, ge=1)
    """The most a user may ask for."""
    answer_seconds: float = Field(default=120.0, gt=0)
    """Longest time an answer may take, within the call's own deadline."""

    @field_validator("hash_key")
    @classmethod
    def _ascii(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not key.get_secret_value().isascii():
            raise ValueError("only ASCII characters are allowed")
        return key

    @model_validator(mode="after")
    def _default_within_bound(self) -> Self:
        if self.default_max_tokens > self.max_response_tokens:
            message = f"default_max_tokens ({self.default_max_tokens}) exceeds max_response_tokens"
            raise ValueError(f"{message} ({self.max_response_tokens})")
        return self
