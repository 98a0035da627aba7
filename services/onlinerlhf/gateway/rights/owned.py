"""What is kept of a person beside prompts, and how to find it by owner: receipts, answers, feedback, idempotency.

Each store has an index by owner, a sorted set of its members by the second they were kept. Whoever erases goes through
the index; a record and its place in the indices are written and deleted together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from onlinerlhf.runtime.keys import RunKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedStore:
    """One store's keys, for one owner."""

    name: str
    """receipts, answers, feedback or idempotency."""
    index: str
    """Sorted set: member -> second."""
    record: Callable[[str], str]
    """Key of a member's record."""
    by_age: str | None = None
    """Sorted set over all owners: member -> second."""


def owned_stores(keys: RunKeys, owner: str) -> tuple[OwnedStore, ...]:
    """All of them."""
    return (
        OwnedStore(name="receipts", index=keys.receipts_of(owner), record=keys.receipt),
        OwnedStore(
            name="answers",
            index=answers_of(keys, owner),
            record=lambda sample_id: answer(keys, sample_id),
            by_age=answers_by_age(keys),
        ),
        OwnedStore(
            name="feedback",
            index=feedback_of(keys, owner),
            record=lambda feedback_id: feedback(keys, feedback_id),
            by_age=feedback_by_age(keys),
        ),
        OwnedStore(
            name="idempotency",
            index=idempotency_of(keys, owner),
            record=lambda digest: keys.idempotency(owner, digest),
        ),
    )


def answer(keys: RunKeys, sample_id: str) -> str:
    """Hash: an answer with the prompt it answers."""
    return keys.key("answer", sample_id)


def answers_of(keys: RunKeys, owner: str) -> str:
    """Sorted set: sample ids of an owner's answers."""
    return keys.key("answers_of", owner)


def answers_by_age(keys: RunKeys) -> str:
    """Sorted set: sample ids of all answers."""
    return keys.key("answers_by_age")


def feedback(keys: RunKeys, feedback_id: str) -> str:
    """Hash: a judgement."""
    return keys.key("feedback", feedback_id)


def feedback_of(keys: RunKeys, owner: str) -> str:
    """Sorted set: ids of judgements on an owner's answers."""
    return keys.key("feedback_of", owner)


def feedback_by_age(keys: RunKeys) -> str:
    """Sorted set: ids of all judgements."""
    return keys.key("feedback_by_age")


def idempotency_of(keys: RunKeys, owner: str) -> str:
    """Sorted set: digests of an owner's idempotency keys; the records' key names hold the owner too."""
    return keys.key("idempotency_of", owner)
