"""The pool of admitted prompts: scripts that are one atomic step each, and what calls them.

admit:  known already -> consent withdrawn, owner erased -> the pool's bound -> duplicate -> the owner's cap
        -> record, ledger, into the pool; or a record alone, where it is held out for validation or testing
feed:   pool -> [prompts] while there is room: new prompts first, tenants by turns, then a further epoch of old ones

What all prompts share (the pool's bound) is asked before what depends on other users' prompts, so a refusal tells
nothing of them. A record is kept as long as data are kept: snapshots are made from it. All may be repeated after a
lost reply.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from redis.asyncio import Redis

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.admission.consent import TrainablePrompt
from onlinerlhf.gateway.admission.fair_share import Tenant, Turn, turns
from onlinerlhf.gateway.admission.lua import ADMIT, FEED_AGAIN, FEED_NEW, LOOK, PEEK
from onlinerlhf.gateway.admission.offers import Verdict
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.batches import run_all
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Argument, command

_MAX_FED_AT_ONCE: Final = 64
_MAX_TENANTS_AT_ONCE: Final = 64
# Each try tells of 16 prompts that may be displaced, and fails only where others have taken all of them since.
_MAX_ADMIT_TRIES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the pool."""

    prompts_per_user: int
    pool_bound: int
    prompts_bound: int
    max_epochs: int
    retention_seconds: int
    """How long a prompt's record is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """What one look at the pool found and moved."""

    num_new: int
    num_reused: int
    num_skipped: int = 0
    """Left the pool otherwise: displaced, withdrawn, erased, expired."""
    num_waiting_new: int
    num_waiting_reuse: int
    is_full: bool
    """[prompts] is at its bound."""

    @property
    def num_moved(self) -> int:
        """Samples now in [prompts] that were not before."""
        return self.num_new + self.num_reused

    @property
    def is_idle(self) -> bool:
        """Another look right away would find nothing to do."""
        return self.num_moved + self.num_skipped == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    backlog: int
    num_new: int
    num_reuse: int
    again: Sequence[bytes]
    tenants: Sequence[Tenant]


class Pool:
    """Admits and feeds. Any number of gateways may share one pool."""

    def __init__(self, redis: Redis, keys: RunKeys, limits: Limits) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits

    async def admit(self, trainable: TrainablePrompt) -> Verdict:
        """One atomic step: ADMITTED or HELD_OUT, or why not, and then nothing has changed. Raises RedisError, OSError;
        Unavailable where others displaced the same prompts each time."""
        prompt_keys = self._admit_keys(trainable)
        arguments = self._admit_arguments(trainable)
        displaceable: list[str] = []
        for _ in range(_MAX_ADMIT_TRIES):
            records = [self._keys.prompt(prompt_id) for prompt_id in displaceable]
            word, *others = await ADMIT.run(self._redis, [*prompt_keys, *records], [*arguments, *displaceable])
            if word != b"again":
                return Verdict(word.decode("ascii"))
            displaceable = [prompt_id.decode("ascii") for prompt_id in others]
        raise Unavailable(f"admitting a prompt: other prompts of its owner were faster {_MAX_ADMIT_TRIES} times")

    async def admit_all(self, trainables: Sequence[TrainablePrompt]) -> list[Verdict]:
        """The same for many prompts, in one trip but for those that displace another. One atomic step each."""
        calls = [(self._admit_keys(each), self._admit_arguments(each)) for each in trainables]
        replies = await run_all(self._redis, ADMIT, calls)
        return [
            await self.admit(trainable) if reply[0] == b"again" else Verdict(reply[0].decode("ascii"))
            for trainable, reply in zip(trainables, replies, strict=True)
        ]

    async def feed(self) -> Fed:
        """Move what there is and what there is room for, at most a few dozen samples. Cheap where there is nothing."""
        look = await self._look()
        moved, skipped = 0, 0
        if look.backlog < self._limits.prompts_bound:
            moved, skipped = await (self._feed_new(look.tenants) if look.num_new else self._feed_again(look.again))
        is_new = look.num_new > 0
        return Fed(
            num_new=moved if is_new else 0,
            num_reused=0 if is_new else moved,
            num_skipped=skipped,
            num_waiting_new=max(look.num_new - (moved if is_new else 0), 0),
            num_waiting_reuse=look.num_reuse,
            is_full=look.backlog + moved >= self._limits.prompts_bound,
        )

    def _admit_keys(self, trainable: TrainablePrompt) -> list[str]:
        keys, prompt = self._keys, trainable.prompt
        return [
            keys.ledger_states,
            keys.ledger_counts,
            keys.ledger_owners,
            keys.blocked,
            keys.dedup,
            dedup_of(keys, prompt.owner),
            keys.prompt(prompt.prompt_id),
            keys.prompts_by_age,
            keys.prompts_of(prompt.owner),
            keys.pool_new(prompt.tenant),
            keys.pool_tenants,
            held_out(keys),
        ]

    def _admit_arguments(self, trainable: TrainablePrompt) -> list[Argument]:
        prompt, fingerprint, limits = trainable.prompt, trainable.fingerprint, self._limits
        return [
            prompt.sample_id,
            prompt.owner,
            int(prompt.consent.shown_at_seconds),
            wire.dump_prompt(prompt),
            limits.retention_seconds,
            prompt.tenant,
            trainable.split.value,
            limits.pool_bound,
            limits.prompts_per_user,
            trainable.cap_score,
            len(fingerprint.turns),
            fingerprint.packed,
        ]

    async def _look(self) -> _Look:
        keys = self._keys
        backlog, num_new, num_reuse, again, tenants = await LOOK.run(
            self._redis,
            [keys.stream(Stage.PROMPTS), keys.ledger_counts, keys.pool_reuse, keys.pool_tenants],
            [_MAX_FED_AT_ONCE, _MAX_TENANTS_AT_ONCE],
        )
        return _Look(
            backlog=backlog,
            num_new=num_new,
            num_reuse=num_reuse,
            again=again if self._limits.max_epochs > 1 else (),
            tenants=[
                Tenant(name=name.decode("ascii"), mass=float(mass))
                for name, mass in zip(tenants[::2], tenants[1::2], strict=True)
            ],
        )

    async def _feed_new(self, tenants: Sequence[Tenant]) -> tuple[int, int]:
        planned = await self._plan(tenants)
        keys, limits = self._keys, self._limits
        places: list[str] = []
        arguments: list[Argument] = [limits.prompts_bound, limits.max_epochs]
        for turn in planned:
            waiting = keys.pool_new(turn.tenant)
            places += [waiting, keys.prompt(turn.sample_id) if turn.sample_id else waiting]
            arguments += [turn.tenant, turn.sample_id]
        moved, skipped = await FEED_NEW.run(self._redis, [*self._feed_keys(), keys.pool_tenants, *places], arguments)
        return int(moved), int(skipped)

    async def _plan(self, tenants: Sequence[Tenant]) -> list[Turn]:
        """Whose turn it is. A list that another gateway changes meanwhile ends the feeding there."""
        near, beyond = tenants[:_MAX_TENANTS_AT_ONCE], tenants[_MAX_TENANTS_AT_ONCE:]
        page = 2 * _MAX_FED_AT_ONCE // max(len(near), 1)
        heads = await PEEK.run(self._redis, [self._keys.pool_new(tenant.name) for tenant in near], [page])
        return turns(
            near,
            [[sample_id.decode("ascii") for sample_id in head] for head in heads],
            page=page,
            ceiling=beyond[0].mass if beyond else float("inf"),
            num_samples=_MAX_FED_AT_ONCE,
        )

    async def _feed_again(self, entries: Sequence[bytes]) -> tuple[int, int]:
        if not entries:
            return 0, 0
        records = [self._keys.prompt(entry.decode("ascii").partition(".")[0]) for entry in entries]
        arguments: list[Argument] = [self._limits.prompts_bound, self._limits.max_epochs]
        for entry, record in zip(entries, await command(self._redis, "MGET", *records), strict=True):
            arguments += [entry, b"" if record is None else _next_epoch(record, entry.decode("ascii"))]
        moved, skipped = await FEED_AGAIN.run(self._redis, self._feed_keys(), arguments)
        return int(moved), int(skipped)

    def _feed_keys(self) -> list[str]:
        keys = self._keys
        return [
            keys.stream(Stage.PROMPTS),
            keys.ledger_states,
            keys.ledger_counts,
            keys.ledger_owners,
            keys.blocked,
            keys.pool_reuse,
        ]


def dedup_of(keys: RunKeys, owner: str) -> str:
    """Hash: an owner's prompt id -> its digests in `keys.dedup`, one after the other."""
    return keys.key("dedup_of", owner)


def held_out(keys: RunKeys) -> str:
    """Hash: prompt id -> valid or test. Prompts that are not in it are for training."""
    return keys.key("held_out")


def _next_epoch(record: bytes, sample_id: str) -> bytes:
    """The record of another pass: a sample of its own."""
    epoch = int(sample_id.rpartition(".")[2])
    prompt = replace(wire.load_prompt(record), sample_id=sample_id, epoch=epoch, admitted_at_seconds=time.time())
    return wire.dump_prompt(prompt)
