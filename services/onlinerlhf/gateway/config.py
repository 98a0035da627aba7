"""Settings of the gateway room: section [gateway]."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from onlinerlhf.gateway.access.callers import MAX_LIMIT, KeyClass, Limits
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.runtime.config import Section, ServiceConfig

DAY_SECONDS = 86_400


class LimitsConfig(Section):
    """A table of limits; what is not named, or "none", has no bound."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    """Prompt and response tokens together."""
    max_concurrent: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    """Answers under way at a time."""
    requests_per_day: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    tokens_per_day: int | None = Field(default=None, ge=1, le=MAX_LIMIT)

    def limits(self) -> Limits:
        """As the meter takes them."""
        return Limits(**self.model_dump())


class GatewayConfig(ServiceConfig):
    """What prompts are taken, how many, and how they are answered."""

    model_dir: Path
    """A transformers directory; only its tokenizer and chat template are read."""
    rollout_target: str
    """gRPC target of the rollout workers that answer users; several as `ipv4:127.0.0.1:1,127.0.0.1:2`."""
    http_listen: str | None = "127.0.0.1:0"
    """Address of the OpenAI-compatible HTTP front; port 0 picks a free one, "none" switches it off."""
    model_name: str = Field(default="policy", pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")
    """What /v1/models lists."""
    require_client_certificate: bool | None = False
    """Clients come with API keys; here their certificates count only where this says so."""

    max_prompt_bytes: int = Field(default=32_768, ge=1)
    max_messages: int = Field(default=128, ge=1)
    max_context_tokens: int = Field(default=4_096, ge=1)
    """Of a rendered prompt with its response, to be answered."""
    max_prompt_tokens: int = Field(default=1_000, ge=1)
    """Of a rendered prompt, to be learned from; longer ones are answered and kept out, not cut."""
    max_answers: int = Field(default=8, ge=1)
    """`n` of one request."""
    default_max_tokens: int = Field(default=256, ge=1)
    max_response_tokens: int = Field(default=1_024, ge=1)
    """The most a user may ask for."""
    answer_seconds: float = Field(default=120.0, gt=0)
    """Longest time an answer may take, within the call's own deadline."""

    playground_limits: LimitsConfig = LimitsConfig(requests_per_minute=1_200, tokens_per_minute=1_200_000)
    """Of each playground key that has none of its own."""
    production_limits: LimitsConfig = LimitsConfig(requests_per_minute=6_000, tokens_per_minute=6_000_000)
    user_limits: LimitsConfig = LimitsConfig(requests_per_minute=600, tokens_per_minute=600_000, max_concurrent=64)
    """Of each user. More at a time than one stream's, whose places are given back a moment after its replies."""
    organisation_limits: LimitsConfig = LimitsConfig(
        requests_per_minute=12_000, tokens_per_minute=12_000_000, max_concurrent=1_024
    )
    serve_without_redis_seconds: float = Field(default=300.0, ge=0)
    """How long production keys verified before are served, under local limits, while Redis is away."""

    notice_versions: tuple[str, ...] = ("1",)
    """Versions of the consent notice that count."""
    notice_seconds: float = Field(default=30 * DAY_SECONDS, gt=0)
    """How long ago the notice may have been shown."""
    pii_policy: dict[KeyClass, Policy] = Field(default_factory=lambda: dict.fromkeys(KeyClass, Policy.DROP))
    """What becomes of texts with personal data or secrets before they are learned from or stored: drop, redact, tag."""
    ner_command: tuple[str, ...] | None = None
    """Program of a named-entity scanner that is asked beside the patterns, as
    ["python", "-m", "onlinerlhf.gateway.pii.presidio_engine"]. Unset: patterns alone."""
    scan_seconds: float = Field(default=2.0, gt=0)
    """A scan that takes longer has failed, and what it scanned is not learned from."""
    prompts_per_user: int = Field(default=200, ge=1)
    """Prompts of one user learned from in a run: those with the lowest keyed hashes."""
    valid_share: float = Field(default=0.05, ge=0, lt=1)
    test_share: float = Field(default=0.05, ge=0, lt=1)
    """Of organisations (users, where there is none) whose prompts are kept for validation and testing."""
    split_salt: str = Field(default="1", pattern=r"^[\x20-\x7e]{1,64}$")
    """Fixed for the life of a run: another one is refused at start."""
    templates_file: Path | None = None
    """Texts whose words are not the user's, one JSON string a line, `{}` where the user's go: ignored by dedup."""
    decontamination_file: Path | None = None
    """Evaluation prompts that must not be learned from, JSON Lines with `prompt`."""
    retention_seconds: int = Field(default=90 * DAY_SECONDS, ge=60)
    """Age at which prompts, answers, receipts and feedback go."""
    idempotency_seconds: int = Field(default=DAY_SECONDS, ge=1)
    """How long a retry with the same idempotency key gets the same receipt."""
    hash_key: SecretStr | None = Field(default=None, min_length=16, max_length=64)
    """Keys the hashes of texts, users and idempotency keys: 16 to 64 ASCII characters.

    Unset: made at random once and kept in the run's Redis.
    """
    admit_wait_seconds: float = Field(default=10.0, gt=0)
    """How long SubmitPrompt waits for Redis, within the call's own deadline."""
    max_concurrent_per_stream: int = Field(default=32, ge=1)
    """Prompts of one SubmitPrompts stream that are taken in together, two such lots at a time."""
    intake_queue_bound: int = Field(default=1_000, ge=1)
    """Answered prompts that may wait for their training screens; beyond, they are not learned from."""

    pool_bound: int = Field(default=10_000, ge=1)
    """Prompts that may wait in the pool for their first pass; at the bound new ones are refused."""
    prompts_bound: int = Field(default=256, ge=1)
    """Backlog to which the feeder tops up [prompts]."""
    max_epochs: int = Field(default=1, ge=1)
    """Passes over a prompt; later passes only while no new prompt waits."""
    feed_poll_seconds: float = Field(default=0.25, gt=0)

    @field_validator("hash_key")
    @classmethod
    def _ascii(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not key.get_secret_value().isascii():
            raise ValueError("only ASCII characters are allowed")
        return key

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.default_max_tokens > self.max_response_tokens:
            message = f"default_max_tokens ({self.default_max_tokens}) exceeds max_response_tokens"
            raise ValueError(f"{message} ({self.max_response_tokens})")
        if self.valid_share + self.test_share >= 1:
            raise ValueError("valid_share and test_share leave nothing to train on")
        return self
