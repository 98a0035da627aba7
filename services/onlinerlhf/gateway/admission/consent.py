"""Consent as a type: nothing enters the pool but a TrainablePrompt, and only `admit` makes one, from proof.

Proof is a playground key and a notice that the owner was shown lately. That the owner has not withdrawn since, and is
not erased, is known to Redis alone; the admit script asks there, in the same step that writes, so nothing can come in
between. Pure.
"""

import math
from collections.abc import Collection
from dataclasses import InitVar, dataclass
from typing import Final

from onlinerlhf.core.errors import ConsentMissing
from onlinerlhf.core.samples import ConsentProof, Prompt
from onlinerlhf.gateway.access.callers import ApiKey, Caller, KeyClass
from onlinerlhf.gateway.admission.dedup import Fingerprint
from onlinerlhf.gateway.admission.splits import Split

CLOCK_SKEW_SECONDS: Final = 60.0
"""By so much a client's clock may be ahead of ours."""

_MADE_BY_ADMIT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentClaim:
    """What a client says about its user's consent."""

    notice_version: str
    shown_at_seconds: float
    """Since 1970-01-01 UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """Which notices count, and for how long after they were shown."""

    versions: frozenset[str]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainablePrompt:
    """A prompt that may be learned from, with what its admission goes by."""

    prompt: Prompt
    fingerprint: Fingerprint
    cap_score: int
    """Keyed hash of 52 bits: of an owner's prompts the lowest are kept."""
    split: Split
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_BY_ADMIT:
            raise TypeError("only admit() makes a trainable prompt")


def prove(
    claim: ConsentClaim | None,
    key: ApiKey,
    *,
    notice_versions: Collection[str],
    notice_seconds: float,
    now: float,
) -> ConsentProof:
    """The proof, or ConsentMissing with the reason. A notice "shown" a little ahead of our clock was shown now: else a
    client could date its consent after a withdrawal that is yet to come."""
    if key.key_class is not KeyClass.PLAYGROUND:
        raise ConsentMissing("prompts of a production key are never learned from", reason="production_key")
    if claim is None:
        raise ConsentMissing("no consent was given to learn from the prompt", reason="no_consent")
    if claim.notice_version not in notice_versions:
        raise ConsentMissing("consent refers to a notice that is not in use", reason="unknown_notice")
    shown_at = claim.shown_at_seconds
    if not math.isfinite(shown_at) or shown_at > now + CLOCK_SKEW_SECONDS:
        raise ConsentMissing("the notice was shown in the future", reason="notice_in_future")
    if shown_at <= 0 or now - shown_at > notice_seconds:
        raise ConsentMissing(f"the notice was shown over {notice_seconds:g} s ago", reason="notice_expired")
    return ConsentProof(
        key_class=key.key_class.value, notice_version=claim.notice_version, shown_at_seconds=min(shown_at, now)
    )


def admit(
    prompt: Prompt,
    caller: Caller,
    *,
    fingerprint: Fingerprint,
    cap_score: int,
    split: Split,
    notices: Notices,
    now: float,
) -> TrainablePrompt:
    """The one way to a trainable prompt. Its proof is checked here, whoever made it, and that it is the caller's."""
    proof = prove(
        ConsentClaim(notice_version=prompt.consent.notice_version, shown_at_seconds=prompt.consent.shown_at_seconds),
        caller.key,
        notice_versions=notices.versions,
        notice_seconds=notices.seconds,
        now=now,
    )
    if proof != prompt.consent or (prompt.owner, prompt.tenant) != (caller.owner, caller.tenant):
        raise ConsentMissing("the proof of consent is not the caller's", reason="no_consent")
    return TrainablePrompt(
        prompt=prompt, fingerprint=fingerprint, cap_score=cap_score, split=split, made_by=_MADE_BY_ADMIT
    )
