"""A load that goes on while a test does something to the platform, and someone who watches what becomes of it."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
from pydantic import SecretStr
from redis.asyncio import Redis

from e2e.platform.real_platform import Platform
from onlinerlhf.core.samples import RolloutGroup, Stage
from onlinerlhf.gateway.access.callers import KeyClass, Scope
from onlinerlhf.local.monitor import Monitor
from onlinerlhf.runtime import redis, wire
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import Consent, Submission

_NUMBERS = itertools.count()


@dataclass(kw_only=True)
class _Beside:
    """Something that runs on threads of its own while a block runs; what it raised fails the block."""

    platform: Platform
    num_threads: int = 1
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=type(self).__name__) for _ in range(self.num_threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
        if error is None:
            assert not any(thread.is_alive() for thread in self._threads), "it does not stop"
            assert self.errors == []

    def _run(self) -> None:
        try:
            self.work(self._stop)
        except Exception as error:  # noqa: BLE001 - raised where the block ends
            self.errors.append(error)

    def work(self, stop: threading.Event) -> None:
        raise NotImplementedError


@dataclass(kw_only=True)
class SteadyPrompts(_Beside):
    """Some prompts a second; each with a receipt."""

    per_turn: int = 1
    pause_seconds: float = 0.4
    receipts: list[str] = field(default_factory=list)

    def work(self, stop: threading.Event) -> None:
        consent = Consent.shown_now("1")
        with self.platform.client() as client:
            while not stop.wait(self.pause_seconds):
                numbers = [next(_NUMBERS) for _ in range(self.per_turn)]
                prompts = [
                    Submission(
                        text=f"Question {number} of many: what is {number} plus one?",
                        user_id=f"user-{number % 20}",  # a user may send so many and no more
                        consent=consent,
                    )
                    for number in numbers
                ]
                self.receipts += [result.unwrap().sample_id for result in client.submit_many(prompts)]


@dataclass(kw_only=True)
class SteadyUsers(_Beside):
    """Users who ask one question after another, straight over gRPC: no client tries anything again for them.

    Their key is a production key, which goes on counting while Redis is slow to answer on busy cores.
    """

    num_threads: int = 2
    max_tokens: int = 32
    pause_seconds: float = 0.4
    answers: list[int] = field(default_factory=list)
    """Tokens of each."""
    failures: list[str] = field(default_factory=list)

    def work(self, stop: threading.Event) -> None:
        key = self.platform.make_key(Scope.GENERATE, key_class=KeyClass.PRODUCTION)
        metadata = (("authorization", f"Bearer {key}"),)
        with grpc.insecure_channel(self.platform.endpoints.gateway, options=[("grpc.enable_retries", 0)]) as channel:
            generate = gateway_pb2_grpc.GatewayServiceStub(channel).Generate
            while not stop.wait(self.pause_seconds):
                number = next(_NUMBERS)
                request = gateway_pb2.GenerateRequest(
                    text=f"User question {number}?".encode(), user_id="bob", max_tokens=self.max_tokens
                )
                try:
                    events = list(generate(request, metadata=metadata, timeout=60))
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code().name}: {error.details()}")
                    continue
                if events[-1].HasField("completion"):
                    self.answers.append(events[-1].completion.num_response_tokens)
                else:
                    self.failures.append("the answer has no end")


@dataclass(kw_only=True)
class Witness(_Beside):
    """Looks through the streams again and again: which worker sampled what, by which version, and when it was ready."""

    learner_at_ready: dict[str, int] = field(default_factory=dict)
    """Worker -> the learner's version when the worker was last seen not ready."""
    samples_since_ready: dict[str, list[int]] = field(default_factory=dict)
    """Worker -> lowest version of each of its samples, for workers that were seen not to be ready."""

    def work(self, stop: threading.Event) -> None:
        asyncio.run(self._watch(stop.is_set))

    async def _watch(self, is_over: Callable[[], bool]) -> None:
        endpoints = self.platform.endpoints
        run = RunConfig(id=endpoints.run_id, redis_url=SecretStr(endpoints.redis_url))
        seen: set[str] = set()
        async with redis.connect(run) as client, Monitor(lambda: self.platform.endpoints) as monitor:
            while not is_over():
                learner = (await monitor.snapshot()).learner
                known = set(self.learner_at_ready)
                for worker in self.platform.endpoints.workers:
                    if worker.state == "starting" and learner is not None:
                        self.learner_at_ready[worker.name] = learner.version
                for group in await _groups(client, RunKeys(run.id)):
                    is_first_look = group.prompt.sample_id not in seen
                    seen.add(group.prompt.sample_id)
                    # What is there when a worker has only just begun to start is from one of the same name before it.
                    if is_first_look and group.worker_id in known:
                        versions = [span.version for rollout in group.rollouts for span in rollout.version_spans]
                        self.samples_since_ready.setdefault(group.worker_id, []).append(min(versions))
                await asyncio.sleep(0.1)


async def _groups(client: Redis, keys: RunKeys) -> list[RolloutGroup]:
    """Everything sampled and not learned from yet. In this order, or one that moves meanwhile would be missed."""
    rollouts = await command(client, "XRANGE", keys.stream(Stage.ROLLOUTS), "-", "+")
    scored = await command(client, "XRANGE", keys.stream(Stage.SCORED), "-", "+")
    return [
        *(wire.load_group(fields[b"data"]) for _, fields in rollouts),
        *(wire.load_scored(fields[b"data"]).group for _, fields in scored),
    ]
