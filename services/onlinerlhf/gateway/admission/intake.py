"""The train path: screens, then the pool. Beside the answers, never before them.

SubmitPrompt  -> admit() ────────────┐
                                     ├─> screens -> Pool.admit (one script) -> verdict -> the feeder wakes
an answer     -> offer() -> [queue] -┘
                    └─> full: overloaded, answered and not learned from

Whatever fails here, the prompt is not learned from; nobody's answer notices. Only a submission waits for its verdict,
and is told of no more than its own proof, the pool's bound and an absent Redis.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from redis.exceptions import RedisError

from onlinerlhf.core.errors import ConsentMissing, OnlineRLHFError, Unavailable
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.admission.consent import TrainablePrompt
from onlinerlhf.gateway.admission.offers import Offer, Verdict
from onlinerlhf.gateway.admission.pool import Pool
from onlinerlhf.gateway.admission.refusals import PoolFull
from onlinerlhf.gateway.admission.screens import Rules, Screens
from onlinerlhf.gateway.pii.scanner import Scanner
from onlinerlhf.runtime.logs import describe_exception
from onlinerlhf.runtime.redis import Patience

__all__ = ["Intake", "Offer", "Rules", "Verdict"]

log = logging.getLogger(__name__)

GIVE_UP_SECONDS: Final = 10.0
"""How long an answered prompt waits for Redis."""
RETRY_AFTER_SECONDS: Final = 5.0
"""When a submission to a full pool should come again."""

_ALL_SECONDS: Final = metrics.SCREEN_SECONDS.labels(screen="all")
_ADMIT_SECONDS: Final = metrics.SCREEN_SECONDS.labels(screen="admit")
_VERDICTS: Final = {verdict: metrics.VERDICTS.labels(verdict=verdict.value) for verdict in Verdict}

_Waiting = tuple[Offer, "asyncio.Future[Verdict]"]


class Intake:
    """Decides what is learned from."""

    def __init__(
        self,
        pool: Pool,
        scanner: Scanner,
        rules: Rules,
        hash_key: HashKey,
        patience: Patience,
        *,
        on_admitted: asyncio.Event,
        queue_bound: int,
        num_workers: int,
    ) -> None:
        self._pool = pool
        self._screens = Screens(scanner, rules)
        self._hash_key = hash_key
        self._patience = patience
        self._on_admitted = on_admitted
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue(queue_bound)
        self._num_workers = num_workers
        self._digests: Digests | None = None
        self._has_ended = False

    async def admit(self, offer: Offer, *, give_up_seconds: float) -> Verdict:
        """Wait for the verdict. Raises ConsentMissing, PoolFull and Unavailable; the caller is told no other."""
        verdict = await self._judge(offer, give_up_seconds=give_up_seconds)
        self._tell(offer, verdict, give_up_seconds)
        return verdict

    async def admit_all(self, offers: Sequence[Offer], *, give_up_seconds: float) -> list[Verdict | OnlineRLHFError]:
        """The same for many at once, which costs less: each with what `admit` would return or raise."""
        verdicts = await self._judge_all(offers, give_up_seconds=give_up_seconds)
        outcomes: list[Verdict | OnlineRLHFError] = []
        for offer, verdict in zip(offers, verdicts, strict=True):
            try:
                self._tell(offer, verdict, give_up_seconds)
            except (ConsentMissing, PoolFull, Unavailable) as error:
                outcomes.append(error)
            else:
                outcomes.append(verdict)
        return outcomes

    def _tell(self, offer: Offer, verdict: Verdict, give_up_seconds: float) -> None:
        if verdict.is_about_consent:
            # Said in the words of the proof, where it is the proof that lacks; only Redis knows of the other two.
            self._screens.prove(offer, now=time.time())
            raise ConsentMissing("the user has withdrawn consent, or was erased", reason=verdict.value)
        if verdict is Verdict.POOL_FULL:
            raise PoolFull("the pool has no room for prompts now", retry_after_seconds=RETRY_AFTER_SECONDS)
        if verdict is Verdict.UNAVAILABLE:
            raise Unavailable(f"admission was not confirmed within {give_up_seconds:.1f} s")

    def offer(self, offer: Offer) -> "asyncio.Future[Verdict]":
        """The verdict to come, on a prompt that is answered anyway. Never waits, never raises."""
        waiting: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        if self._has_ended:
            waiting.set_result(_counted(Verdict.UNAVAILABLE))
            return waiting
        try:
            self._screens.prove(offer, now=time.time())
            self._queue.put_nowait((offer, waiting))
        except ConsentMissing as error:
            waiting.set_result(_counted(Verdict(error.reason)))
        except asyncio.QueueFull:
            waiting.set_result(_counted(Verdict.OVERLOADED))
        return waiting

    async def run(self, stop: asyncio.Event) -> None:
        """Judge what is offered until `stop`, then what was offered before; whoever drains bounds that."""
        self._has_ended = False
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._num_workers):
                    group.create_task(self._work(), name=f"intake {number}")
                await stop.wait()
                for _ in range(self._num_workers):
                    await self._queue.put(None)
        finally:
            self._has_ended = True
            self._turn_away()

    async def _work(self) -> None:
        while (next_one := await self._queue.get()) is not None:
            metrics.INTAKE_QUEUE.set(self._queue.qsize())
            offer, waiting = next_one
            verdict = Verdict.UNAVAILABLE
            try:
                verdict = await self._judge(offer, give_up_seconds=GIVE_UP_SECONDS)
            except Exception as error:  # noqa: BLE001 - the edge of a worker: one prompt must not stop the others
                told = describe_exception(error, safe=(OnlineRLHFError,))
                log.error("admission failed", extra={"error": type(error).__name__, "exception": told})
                _counted(verdict)
            finally:
                if not waiting.done():
                    waiting.set_result(verdict)

    def _turn_away(self) -> None:
        with suppress(asyncio.QueueEmpty):
            while True:
                next_one = self._queue.get_nowait()
                if next_one is not None and not next_one[1].done():
                    next_one[1].set_result(_counted(Verdict.UNAVAILABLE))

    async def _judge(self, offer: Offer, *, give_up_seconds: float) -> Verdict:
        (verdict,) = await self._judge_all([offer], give_up_seconds=give_up_seconds)
        return verdict

    async def _screened(self, offer: Offer, *, give_up_seconds: float) -> TrainablePrompt | Verdict:
        """Raises ConsentMissing, and Unavailable where the hash key is not to be had."""
        if self._digests is None:
            self._digests = await self._patience(
                "the hash key", self._hash_key.digests, give_up_seconds=give_up_seconds
            )
        try:
            return await self._screens.pass_all(offer, self._digests, now=time.time())
        except ConsentMissing:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of the screens: closed for learning, whatever breaks
            # Its message may hold the text.
            log.error("a screen failed", extra={"error": type(error).__name__})
            return Verdict.SCREEN_FAILED

    async def _judge_all(self, offers: Sequence[Offer], *, give_up_seconds: float) -> list[Verdict]:
        """Screens one after the other, then the pool for all."""
        started = time.monotonic()
        verdicts = dict.fromkeys(range(len(offers)), Verdict.UNAVAILABLE)
        passed: dict[int, TrainablePrompt] = {}
        try:
            async with asyncio.timeout(give_up_seconds):
                for number, offer in enumerate(offers):
                    try:
                        screened = await self._screened(offer, give_up_seconds=give_up_seconds)
                    except ConsentMissing as error:
                        screened = Verdict(error.reason)
                    if isinstance(screened, Verdict):
                        verdicts[number] = screened
                    else:
                        passed[number] = screened
                with _ADMIT_SECONDS.time():
                    admitted = await self._patience(
                        "admitting prompts",
                        lambda: self._pool.admit_all(list(passed.values())),
                        give_up_seconds=max(give_up_seconds - (time.monotonic() - started), 0.0),
                    )
            verdicts.update(zip(passed, admitted, strict=True))
        except (Unavailable, TimeoutError):
            # What was not confirmed stays unavailable.
            log.debug("prompts not admitted in time")
        except (RedisError, OSError) as error:
            # A reply that no waiting mends is the platform's trouble, not the user's.
            log.error("admission failed", extra={"error": type(error).__name__})
        if Verdict.ADMITTED in verdicts.values():
            self._on_admitted.set()
        seconds = time.monotonic() - started
        for _ in offers:
            _ALL_SECONDS.observe(seconds)
        return [_counted(verdicts[number]) for number in range(len(offers))]


def _counted(verdict: Verdict) -> Verdict:
    _VERDICTS[verdict].inc()
    return verdict
