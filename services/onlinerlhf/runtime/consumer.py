"""One consumer of one stage: reads samples under a lease, and moves each on in one atomic step.

read -> Delivery -> hand_over | drop | dead_letter | finish     the sample moves on, the entry is gone
                 -> retry_later                                 the lease runs out, then it is delivered again
                 -> give_back                                   anybody may take it at once
                 -> confirm                                     it may still be used, or it is gone

A heartbeat renews the leases of all that is held, however long that takes. A consumer that dies stops renewing, and
after `lease_seconds` another one takes over; whoever of the two commits first wins.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.runtime import metrics, stream_scripts
from onlinerlhf.runtime.cordon import Cordon
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.leases import Delivery, Leases
from onlinerlhf.runtime.ledger import dropped_state, trained_state
from onlinerlhf.runtime.redis import Argument, Patience, away_reason, command
from onlinerlhf.runtime.rights import Rights, in_training
from onlinerlhf.runtime.tasks import unless

log = logging.getLogger(__name__)

RETURNED: Final = "(returned)"
"""The consumer name under which entries wait that were given back."""
NEXT_STAGE: Final = {Stage.PROMPTS: Stage.ROLLOUTS, Stage.ROLLOUTS: Stage.SCORED}
BLOCK_SLICE_SECONDS: Final = 0.5
"""A blocked reader looks up this often: for entries given back, for the dead, and for its caller."""
FINISH_AT_ONCE: Final = 500
_KIND: Final = re.compile(r"[A-Za-z0-9_.]{1,64}")


class Consumer:
    """An async context manager; its leases are renewed inside.

    Entering starts over, as a restart does: what this name still holds in Redis is delivered (again) first.
    """

    def __init__(
        self,
        redis: Redis,
        keys: RunKeys,
        stage: Stage,
        *,
        name: str,
        patience: Patience,
        lease_seconds: float = 30,
        delivery_limit: int | None = 5,
    ) -> None:
        if stage is Stage.POOL or name in ("", RETURNED):
            raise ValueError(f"no consumer {name!r} of {stage}")
        self._redis = redis
        self._keys = keys
        self._stage = stage
        self._name = name
        self._patience = patience
        self._limit = delivery_limit or 0
        self._stream = keys.stream(stage)
        self._bookkeeping = [keys.ledger_states, keys.ledger_counts, keys.attempts(stage), keys.errors(stage)]
        self._consent = [keys.blocked, keys.ledger_owners]
        self._cordon = Cordon(redis, keys, name=name)
        self._rights = Rights(redis, keys, stage, patience)
        self._leases = Leases(redis, keys, stage, name=name, patience=patience, lease_seconds=lease_seconds)
        self._recover = 1
        """Own entries that are not held: 1: from before a restart; 2: a reply may have been lost; 0: none."""
        self._next_scan = 0.0
        self._turn = asyncio.Lock()

    @property
    def held(self) -> int:
        """Entries on which this consumer holds a lease."""
        return len(self._leases.held)

    @property
    def held_deliveries(self) -> tuple[Delivery, ...]:
        """What is held, to be given back at a drain."""
        return tuple(self._leases.held.values())

    async def look_for_cordon(self) -> bool:
        """Whether this consumer gets nothing new for now, known to a second, also while it does not read."""
        return await self._cordon.look()

    async def __aenter__(self) -> Self:
        self._recover = 1
        self._leases.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop renewing. What is still held is found again under the same name, or taken by others after its lease."""
        await self._leases.stop()
        try:
            await stream_scripts.LEAVE.run(self._redis, [self._stream], [self._keys.group, self._name])
        except (RedisError, OSError) as gone:
            # The name stays in the group, which costs nothing.
            log.debug("consumer not removed", extra={"stage": self._stage, "error": type(gone).__name__})

    async def read(self, *, max_count: int, block_seconds: float, stop: asyncio.Event | None = None) -> list[Delivery]:
        """Up to `max_count` samples; [] where there was none, or no Redis, for `block_seconds`, or `stop` came.

        Own entries from before a restart come first, then given-back ones and those of dead consumers, then new ones.
        Never returns what is held already. While the consumer is cordoned, own entries are all it gets.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + block_seconds
        while True:
            left_seconds = max(deadline - loop.time(), 0.0)
            take = partial(self._leases.in_group, partial(self._take, max_count))
            try:
                async with self._turn:
                    deliveries, handled, last_entry = await self._patience(
                        f"read [{self._stage}]", take, give_up_seconds=left_seconds
                    )
            except Unavailable:
                return []
            if deliveries:
                return deliveries
            if handled:
                continue
            if deadline <= loop.time():
                return []
            waiting = self._wait_for_entry_after(last_entry, min(left_seconds, BLOCK_SLICE_SECONDS))
            if stop is None:
                await waiting
                continue
            await unless(stop, waiting)
            if stop.is_set():
                return []

    async def hand_over(self, delivery: Delivery, payload: bytes) -> bool:
        """To the next stage. False: the sample had moved on, be it by an earlier try whose reply was lost, or it was
        dropped because its owner has withdrawn consent or was erased.
        """
        next_stage = NEXT_STAGE[self._stage]
        states, counts, attempts, errors = self._bookkeeping
        keys = [self._stream, self._keys.stream(next_stage), states, counts, attempts, errors, *self._consent]
        arguments: list[Argument] = [
            self._keys.group,
            delivery.entry_id,
            delivery.sample_id,
            self._stage,
            next_stage,
            payload,
        ]
        reply = await self._settle(
            delivery, "hand over", partial(stream_scripts.HAND_OVER.run, self._redis, keys, arguments)
        )
        if isinstance(reply, bytes):
            self._count_refused([reply.decode()])
            return False
        metrics.HANDED_OVER.labels(self._stage).inc(reply)
        return reply == 1

    async def drop(self, delivery: Delivery, reason: DropReason) -> bool:
        """The sample ends here, counted under its reason. False: it had moved on."""
        return await self._drop(delivery, reason, error="")

    async def dead_letter(self, delivery: Delivery, error: str) -> bool:
        """Bury at once, whatever the attempts. `error` is a kind: one word, no text. False: it had moved on."""
        reason = DropReason.MALFORMED if error == DropReason.MALFORMED else DropReason.DEAD_LETTER
        buried = await self._drop(delivery, reason, error=_kind(error))
        if buried:
            self._report_dead(delivery.sample_id, delivery.attempt, _kind(error))
        return buried

    async def retry_later(self, delivery: Delivery, error: str) -> None:
        """Let go; delivered again, to anybody, when the lease has run out. Buried if this was the last attempt."""
        if self._limit and delivery.attempt >= self._limit:
            await self.dead_letter(delivery, error)
            return
        keys = [self._keys.ledger_states, self._keys.errors(self._stage)]
        note = partial(
            stream_scripts.NOTE_ERROR.run, self._redis, keys, [delivery.sample_id, self._stage, _kind(error)]
        )
        await self._patience("note an error", note)
        self._leases.set_aside(delivery.entry_id)

    async def give_back(self, deliveries: Sequence[Delivery], *, give_up_seconds: float | None = None) -> None:
        """Others may take them at once, and the attempt does not count. Raises Unavailable after give_up_seconds."""
        if not deliveries:
            return
        pairs = [part for delivery in deliveries for part in (delivery.entry_id, delivery.sample_id)]
        keys = [self._stream, self._keys.attempts(self._stage)]
        arguments: list[Argument] = [self._keys.group, self._name, RETURNED, *pairs]
        script = partial(stream_scripts.GIVE_BACK.run, self._redis, keys, arguments)
        with self._leases.settling(delivery.entry_id for delivery in deliveries):
            give_back = partial(self._leases.in_group, script)
            await self._patience("give back", give_back, give_up_seconds=give_up_seconds)

    async def finish(self, entries: Sequence[tuple[str, str]], *, version: int) -> int:
        """(entry id, sample id) pairs were learned from: trained. Returns how many had not been finished before.

        What was erased meanwhile stays dropped, and its owner's erasure names the version.
        """
        keys = [self._stream, *self._bookkeeping, in_training(self._keys)]
        num_new = 0
        for start in range(0, len(entries), FINISH_AT_ONCE):
            chunk = entries[start : start + FINISH_AT_ONCE]
            arguments: list[Argument] = [
                self._keys.group,
                self._stage,
                trained_state(version),
                *(part for pair in chunk for part in pair),
            ]
            script = partial(stream_scripts.FINISH.run, self._redis, keys, arguments)
            with self._leases.settling(entry_id for entry_id, _ in chunk):
                num_moved, erased = await self._patience("finish", script)
            num_new += num_moved
            await self._rights.note_version(erased, version)
        metrics.HANDED_OVER.labels(self._stage).inc(num_new)
        return num_new

    async def confirm(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that may still be used. The others are gone: withdrawn, erased, or moved on by someone else."""
        if not deliveries:
            return []
        gone = await self._rights.confirm(deliveries)
        with self._leases.settling(deliveries[at].entry_id for at in gone):
            self._count_refused([reason for reason in gone.values() if reason])
        return [delivery for at, delivery in enumerate(deliveries) if at not in gone]

    async def forget_in_training(self) -> None:
        """After a start, once all that a checkpoint contains is finished: nothing is in a step now."""
        await self._rights.forget_in_training()

    def _count_refused(self, reasons: Sequence[str]) -> None:
        for reason in reasons:
            metrics.DROPPED.labels(self._stage, reason).inc()

    async def _drop(self, delivery: Delivery, reason: DropReason, *, error: str) -> bool:
        keys = [self._stream, self._keys.dead(self._stage), *self._bookkeeping]
        state = dropped_state(reason)
        arguments: list[Argument] = [self._keys.group, delivery.entry_id, delivery.sample_id, self._stage, state, error]
        script = partial(stream_scripts.DROP.run, self._redis, keys, arguments)
        moved = await self._settle(delivery, "drop", script) == 1
        if moved:
            metrics.DROPPED.labels(self._stage, reason).inc()
        return moved

    async def _settle(self, delivery: Delivery, what: str, script: Callable[[], Awaitable[int | bytes]]) -> int | bytes:
        with self._leases.settling([delivery.entry_id]):
            return await self._patience(f"{what} from [{self._stage}]", script)

    async def _take(self, max_count: int) -> tuple[list[Delivery], int, str]:
        now = asyncio.get_running_loop().time()
        scan = now >= self._next_scan
        leave = [*self._leases.held, *(self._leases.still_set_aside() if self._recover else ())]
        keys = [self._stream, self._keys.dead(self._stage), *self._bookkeeping, *self._consent, self._keys.cordoned]
        arguments: list[Argument] = [
            self._keys.group,
            self._name,
            RETURNED,
            self._stage,
            max_count,
            int(self._leases.lease_seconds * 1000),
        ]
        recover = self._recover
        try:
            taken, buried, handled, left, last_entry, refused, cordoned_ms = await stream_scripts.TAKE.run(
                self._redis, keys, [*arguments, self._limit, recover, int(scan), *leave]
            )
        except BaseException:
            # The script may have run. And after an outage every lease looks expired: let its holder renew it first.
            self._recover = recover or 2
            self._next_scan = now + self._leases.lease_seconds / 2
            raise
        self._recover = recover if left else 0
        self._cordon.hear(cordoned_ms)
        if scan:
            self._next_scan = now + min(self._leases.lease_seconds / 4, 5.0)
        for sample, tries, error in buried:
            self._report_dead(sample.decode(errors="replace"), int(tries), error.decode())
        self._count_refused([reason.decode() for reason in refused])
        deliveries = [self._hold(row) for row in taken]
        return deliveries, int(handled), last_entry.decode()

    def _hold(self, row: tuple[bytes, bytes, bytes, int]) -> Delivery:
        entry_id, sample_id, payload, attempt = row
        delivery = Delivery(
            stage=self._stage,
            entry_id=entry_id.decode(),
            sample_id=sample_id.decode(errors="replace"),
            payload=payload,
            attempt=attempt,
        )
        self._leases.hold(delivery)
        return delivery

    async def _wait_for_entry_after(self, last_entry: str, seconds: float) -> None:
        """Sleep until something is added. XREAD takes nothing, so a reply lost on the way loses nothing."""
        if self._cordon.is_on:
            # What is added is not for this consumer.
            await asyncio.sleep(seconds)
            return
        block_ms = max(int(seconds * 1000), 1)
        try:
            await command(self._redis, "XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", self._stream, last_entry)
        except (RedisError, OSError) as error:
            # The next take says so, and waits.
            if away_reason(error) is None:
                raise

    def _report_dead(self, sample_id: str, attempts: int, error: str) -> None:
        metrics.DEAD_LETTERS.labels(self._stage).inc()
        extra = {"stage": self._stage, "sample_id": sample_id, "attempts": attempts, "error": error}
        log.warning("dead letter", extra=extra)


def _kind(error: str) -> str:
    """Only words that name a kind get into Redis: anything else could quote a prompt."""
    return error if _KIND.fullmatch(error) else "unspecified"
