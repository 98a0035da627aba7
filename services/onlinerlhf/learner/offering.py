"""Numbers the versions and offers them on every line.

A version's number is taken in Redis before anybody can see its weights, so on no line does a number ever stand for two
sets of weights: a learner that resumes from before a published version publishes its own under a number above it.
"""

from functools import partial

from redis.asyncio import Redis

from onlinerlhf.core.errors import WeightsRefused
from onlinerlhf.core.weights import Line
from onlinerlhf.learner import metrics
from onlinerlhf.learner.lines import WeightLines, line_tensors
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.publisher import Publisher
from onlinerlhf.learner.status import Phase, Status
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience, command


class Offering:
    """Between the learner's loop and its weight lines. The policy's comes first, and waits for no other."""

    def __init__(
        self,
        lines: WeightLines,
        *,
        redis: Redis,
        keys: RunKeys,
        patience: Patience,
        status: Status,
        health: Health,
        retry_seconds: float,
    ) -> None:
        self._lines = lines.publishers
        self._redis = redis
        self._key = keys.latest_version
        self._patience = patience
        self._status = status
        self._health = health
        self._retry_seconds = retry_seconds
        self._due: dict[Line, float] = {}
        """Lines that lack the status's version, with the earliest time of the next try."""

    async def start(self, ppo: PPO) -> None:
        """Offer the weights as they are: under the number they have if nothing newer was offered, else a new one."""
        for publisher in self._lines.values():
            await publisher.load()
        latest = await self._known_version()
        offered = {
            line: await publisher.offers(partial(line_tensors, ppo, line), latest)
            for line, publisher in self._lines.items()
        }
        is_taken = any(
            publisher.newest_version() == latest and not offered[line] for line, publisher in self._lines.items()
        )
        if offered[Line.POLICY] and not is_taken:
            self._status.version = latest
            await self._write_latest(latest)
            self._due = {line: 0.0 for line, is_offered in offered.items() if not is_offered}
            for line in self._lines.keys() - self._due.keys():
                self._settle(line)
            await self.offer_again(ppo)
        else:
            self._status.version = await self.take_version()
            await self.offer(ppo)
        metrics.VERSION.set(self._status.version)

    async def take_version(self) -> int:
        """The next number, recorded before its weights can be seen."""
        version = await self._known_version() + 1
        await self._write_latest(version)
        return version

    async def offer(self, ppo: PPO) -> float:
        """Offer the status's version on every line. Returns the seconds it took.

        Where that fails, the line's older version stays on offer, and `offer_again` tries again.
        """
        started = self._status.clock()
        self._due = dict.fromkeys(self._lines, 0.0)
        await self.offer_again(ppo)
        return self._status.clock() - started

    async def offer_again(self, ppo: PPO) -> None:
        """Try the lines that lack the version, where it is time to."""
        for line in [line for line, earliest in self._due.items() if self._status.clock() >= earliest]:
            await self._publish(ppo, line, self._lines[line])

    async def _publish(self, ppo: PPO, line: Line, publisher: Publisher) -> None:
        status = self._status
        status.phase = Phase.PUBLISHING
        started = status.clock()
        try:
            await publisher.publish(partial(line_tensors, ppo, line), status.version)
        except (OSError, WeightsRefused) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            what = f"version {status.version}" if line is Line.POLICY else f"version {status.version} of line {line}"
            self._due[line] = status.clock() + self._retry_seconds
            status.fail(line, f"{what} was not published: {reason}")
            self._health.set(line, ok=False, reason=status.last_error)
            metrics.PUBLISH_FAILURES.labels(line).inc()
        else:
            self._settle(line)
            metrics.PUBLISH_SECONDS.labels(line).observe(status.clock() - started)

    def _settle(self, line: Line) -> None:
        self._due.pop(line, None)
        self._health.set(line, ok=True)
        self._status.recover(line)

    async def _known_version(self) -> int:
        """The highest number that Redis, the version files, the checkpoint or this process has ever seen."""
        found = await self._patience("read the latest version", lambda: command(self._redis, "GET", self._key))
        on_disk = [publisher.newest_version() for publisher in self._lines.values()]
        return max(int(found or 0), *on_disk, self._status.version)

    async def _write_latest(self, version: int) -> None:
        await self._patience("write the latest version", lambda: command(self._redis, "SET", self._key, version))
