"""The pool of admitted prompts: two scripts, each one atomic step, and what calls them.

admit:  idempotency key -> exact duplicate -> the user's cap -> the pool's bound -> record, ledger, into the pool
feed:   pool -> [prompts] while there is room: new prompts first, then a further epoch of an old one

A prompt's record is kept from its admission until its last epoch is fed. Both may be repeated after a lost reply.
"""

import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from redis.asyncio import Redis

from onlinerlhf.core.errors import IdempotencyConflict
from onlinerlhf.core.samples import Prompt, Stage
from onlinerlhf.gateway.lua import ADMIT, FEED_AGAIN, FEED_NEW, LOOK
from onlinerlhf.gateway.refusals import Duplicate, PoolFull, UserCap
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command

_MAX_FED_AT_ONCE: Final = 64


def new_sample_id() -> str:
    """Unguessable, so that it can stand for the right to ask about the sample."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPrompt:
    """A screened prompt with the keyed hashes that its keys are made of."""

    prompt: Prompt
    user_digest: str
    idempotency_digest: str
    body_digest: str
    """Of the bytes as sent: a retry repeats them."""
    text_digest: str
    """Of the normalised text: a duplicate shares it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A prompt was admitted, by this call or by an earlier one with the same idempotency key."""

    sample_id: str
    replayed: bool
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the pool."""

    prompts_per_user: int
    pool_bound: int
    prompts_bound: int
    max_epochs: int
    idempotency_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """What one look at the pool found and moved."""

    num_new: int
    num_reused: int
    num_waiting_new: int
    num_waiting_reuse: int
    is_full: bool
    """[prompts] is at its bound."""

    @property
    def num_moved(self) -> int:
        """Samples now in [prompts] that were not before."""
        return self.num_new + self.num_reused


class Pool:
    """Admits and feeds. Any number of gateways may share one pool."""

    def __init__(self, redis: Redis, keys: RunKeys, limits: Limits, *, hash_key: bytes | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits
        self._hash_key = hash_key

    async def hash_key(self) -> bytes:
        """Keys all digests of the run. Where none is set, the first gateway that asks draws one for all."""
        if self._hash_key is None:
            name = self._keys.key("gateway", "hash_key")
            await command(self._redis, "SET", name, secrets.token_bytes(32), "NX")
            self._hash_key = bytes(await command(self._redis, "GET", name))
        return self._hash_key

    async def admit(self, entry: NewPrompt) -> Receipt:
        """One atomic step. Raises IdempotencyConflict, Duplicate, UserCap or PoolFull, and then nothing has changed."""
        prompt, limits = entry.prompt, self._limits
        verdict, sample_id, num_tokens = await ADMIT.run(
            self._redis,
            [
                self._keys.idempotency(entry.idempotency_digest),
                self._keys.user(entry.user_digest),
                self._keys.dedup,
                self._keys.prompt(prompt.prompt_id),
                self._keys.pool_new,
                self._keys.ledger_states,
                self._keys.ledger_counts,
            ],
            [
                entry.body_digest,
                prompt.sample_id,
                entry.text_digest,
                wire.dump_prompt(prompt),
                len(prompt.token_ids),
                limits.prompts_per_user,
                limits.pool_bound,
                limits.idempotency_seconds,
            ],
        )
        self._raise_if_refused(verdict)
        admitted = sample_id.decode("ascii")
        # Ours even where the script ran twice because the first reply was lost.
        replayed = admitted != prompt.sample_id
        return Receipt(sample_id=admitted, replayed=replayed, num_prompt_tokens=int(num_tokens))

    def _raise_if_refused(self, verdict: bytes) -> None:
        match verdict:
            case b"admitted" | b"replayed":
                return
            case b"idempotency_conflict":
                raise IdempotencyConflict(
                    "this idempotency_key was used with another text; a new prompt needs a new key"
                )
            case b"duplicate":
                raise Duplicate("the same text, up to case, whitespace and invisible characters, was admitted before")
            case b"user_cap":
                raise UserCap(f"this user has {self._limits.prompts_per_user} admitted prompts, which is the most")
            case b"pool_full":
                raise PoolFull(f"{self._limits.pool_bound} prompts wait in the pool, which is the most; try later")
            case _:
                raise AssertionError(f"the admit script answered {verdict!r}")

    async def feed(self) -> Fed:
        """Move what there is and what there is room for, at most a few dozen samples. Cheap where there is nothing."""
        backlog, num_new, num_reuse, new, again = await self._look()
        moved = 0
        is_new = bool(new)
        if backlog < self._limits.prompts_bound:
            moved = await (self._feed_new(new) if is_new else self._feed_again(again))
        return Fed(
            num_new=moved if is_new else 0,
            num_reused=0 if is_new else moved,
            num_waiting_new=num_new - (moved if is_new else 0),
            num_waiting_reuse=num_reuse,
            is_full=backlog + moved >= self._limits.prompts_bound,
        )

    async def _look(self) -> tuple[int, int, int, Sequence[bytes], Sequence[bytes]]:
        keys = [self._keys.stream(Stage.PROMPTS), self._keys.pool_new, self._keys.pool_reuse]
        backlog, num_new, num_reuse, new, again = await LOOK.run(self._redis, keys, [_MAX_FED_AT_ONCE - 1])
        return backlog, num_new, num_reuse, new, again if self._limits.max_epochs > 1 else ()

    async def _feed_new(self, sample_ids: Sequence[bytes]) -> int:
        records = [self._keys.prompt(sample_id.decode("ascii")) for sample_id in sample_ids]
        moved = await FEED_NEW.run(
            self._redis,
            [*self._feed_keys(), *records],
            [self._limits.prompts_bound, self._limits.max_epochs, *sample_ids],
        )
        return int(moved)

    async def _feed_again(self, entries: Sequence[bytes]) -> int:
        if not entries:
            return 0
        records = [self._keys.prompt(entry.decode("ascii").partition(".")[0]) for entry in entries]
        arguments: list[bytes | int] = [self._limits.prompts_bound, self._limits.max_epochs]
        for entry, record in zip(entries, await command(self._redis, "MGET", *records), strict=True):
            # A record can be gone only if another gateway has just fed this entry; then the script skips it.
            arguments += [entry, b"" if record is None else _next_epoch(record, entry.decode("ascii"))]
        return int(await FEED_AGAIN.run(self._redis, [*self._feed_keys(), *records], arguments))

    def _feed_keys(self) -> list[str]:
        keys = self._keys
        return [keys.pool_new, keys.pool_reuse, keys.stream(Stage.PROMPTS), keys.ledger_states, keys.ledger_counts]


def _next_epoch(record: bytes, sample_id: str) -> bytes:
    """The record of another pass: a sample of its own."""
    epoch = int(sample_id.rpartition(".")[2])
    prompt = replace(wire.load_prompt(record), sample_id=sample_id, epoch=epoch, admitted_at_seconds=time.time())
    return wire.dump_prompt(prompt)
