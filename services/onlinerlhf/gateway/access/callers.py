"""Who is calling: an API key, and the user of its organisation on whose behalf."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_LIMIT: Final = 100_000_000
"""Up to here the buckets' arithmetic is exact in the doubles that Lua has."""


class KeyClass(StrEnum):
    """What a key's prompts may be used for."""

    PLAYGROUND = "playground"
    """Answered, and with its owner's consent learned from."""
    PRODUCTION = "production"
    """Answered, never learned from."""


class Scope(StrEnum):
    """What a key may do."""

    GENERATE = "generate"
    """Submit prompts and get answers."""
    FEEDBACK = "feedback"
    """Judge answers that it received."""
    ADMIN = "admin"
    """Erase, verify, export; see where any sample is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a key, a user or an organisation may use. None: no limit of that kind."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and response tokens together."""
    max_concurrent: int | None = None
    """Answers under way at a time."""
    requests_per_day: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key; the key itself is known to its holder alone."""

    key_id: str
    """12 characters of base 62, part of the key and no secret."""
    name: str
    key_class: KeyClass
    organisation: str
    """Empty: none."""
    scopes: frozenset[Scope]
    created_at_seconds: float
    revoked_at_seconds: float | None = None
    limits: Limits | None = None
    """Of this key in place of its class's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated call on behalf of a user."""

    key: ApiKey
    owner: str
    """Keyed digest of organisation and user."""
    tenant: str
    """Keyed digest of the organisation, or of the owner where there is none."""
