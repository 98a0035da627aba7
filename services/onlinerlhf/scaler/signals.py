"""What the decision is made from, asked of the run: Redis for the work, the learner and the workers for the rest.

Redis away is an error, as without the backlog nothing can be decided. A learner or a worker that does not answer is
unknown, no more.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import grpc

from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime import redis as redis_connection
from onlinerlhf.runtime.channels import ClientTls, open_channel
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.cordon import EMPTYING
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.tasks import end
from onlinerlhf.scaler.config import ScalerConfig
from onlinerlhf.scaler.observation import Pipeline, Pod, Worker
from onlinerlhf.scaler.run_state import Rate, look, num_left_scored, set_cordons
from onlinerlhf.v1 import learner_pb2, learner_pb2_grpc, rollout_pb2, rollout_pb2_grpc

ANSWER_SECONDS: Final = 2.0
MAX_QUESTIONS: Final = 64
"""To workers at a time."""
CORDON_SECONDS: Final = 30.0
"""At least; else so many polls: a scaler that is late once keeps its cordons, and a dead one soon has none."""
CORDON_POLLS: Final = 3


class Signals:
    """Connects at the first question. One at a time of each kind."""

    def __init__(self, run: RunConfig, config: ScalerConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis_connection.connect(run)
        self._keys = RunKeys(run.id)
        self._config = config
        self._clock = clock
        self._rate = Rate()
        self._learner: grpc.aio.Channel | None = None
        self._workers: dict[str, grpc.aio.Channel] = {}
        """By target."""

    async def pipeline(self) -> Pipeline:
        """The work and the learner. Raises Unavailable where Redis does not tell."""
        asking = asyncio.create_task(self._ask_learner(), name="ask the learner")
        try:
            state = await look(self._redis, self._keys)
            progress = await asking
        finally:
            await end([asking])
        in_flight = sum(state.held.values())
        return Pipeline(
            num_waiting=state.counts.pending[Stage.POOL] + state.backlogs[Stage.PROMPTS] - in_flight,
            num_in_flight=in_flight,
            num_ahead=state.backlogs[Stage.ROLLOUTS] + state.backlogs[Stage.SCORED],
            max_samples_ahead=self._config.max_samples_ahead,
            oldest_seconds=state.oldest_seconds,
            learner_version=progress.version,
            staleness=progress.metrics.get("staleness_mean", 0.0),
            learner_samples_per_second=self._rate.add(self._clock(), num_left_scored(state.counts)),
        )

    async def workers(self, pods: Sequence[Pod]) -> tuple[Worker, ...]:
        """A worker a pod, in the order given. Raises Unavailable where Redis does not tell what they hold."""
        state = await look(self._redis, self._keys)
        await self._forget_all_but({self._target(pod) for pod in pods if pod.address})
        limit = asyncio.Semaphore(MAX_QUESTIONS)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask(pod, limit), name=f"ask {pod.name}") for pod in pods]
        return tuple(
            Worker(
                name=pod.name,
                ready=pod.ready,
                started=pod.started,
                num_in_flight=state.held.get(pod.name, 0),
                num_user_requests=answer.num_user_requests if answer else 0,
                version=answer.version if answer else 0,
                answered=answer is not None,
                cordoned=pod.name in state.cordoned,
                keeps_users_away=answer is None or answer.version == 0 or answer.reason == EMPTYING,
            )
            for pod, answer in zip(pods, [task.result() for task in asking], strict=True)
        )

    async def cordon(self, workers: Sequence[str], *, lift: Sequence[str]) -> None:
        """These get nothing new until lifted, or for some polls; those to `lift` do again. Raises Unavailable."""
        seconds = max(CORDON_SECONDS, CORDON_POLLS * self._config.poll_seconds)
        await set_cordons(self._redis, self._keys, workers, lift=lift, seconds=seconds)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._forget_all_but(set())
        if self._learner is not None:
            await self._learner.close()
        await self._redis.aclose()

    async def _ask_learner(self) -> learner_pb2.GetProgressResponse:
        """An empty answer where there is none: version 0, no metrics."""
        if self._config.learner_target is None:
            return learner_pb2.GetProgressResponse()
        if self._learner is None:
            self._learner = open_channel(self._config.learner_target, tls=self._config.client_tls(), retry=False)
        stub = learner_pb2_grpc.LearnerServiceStub(self._learner)
        try:
            return await stub.GetProgress(learner_pb2.GetProgressRequest(), timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError:
            return learner_pb2.GetProgressResponse()

    async def _ask(self, pod: Pod, limit: asyncio.Semaphore) -> rollout_pb2.GetRolloutStatusResponse | None:
        if not pod.address:
            return None
        target = self._target(pod)
        if target not in self._workers:
            self._workers[target] = open_channel(target, tls=self._rollout_tls(), retry=False)
        stub = rollout_pb2_grpc.RolloutServiceStub(self._workers[target])
        async with limit:
            try:
                return await stub.GetStatus(rollout_pb2.GetRolloutStatusRequest(), timeout=ANSWER_SECONDS)
            except grpc.aio.AioRpcError:
                return None

    def _target(self, pod: Pod) -> str:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        return f"{host}:{self._config.rollout_port}"

    def _rollout_tls(self) -> ClientTls | None:
        tls = self._config.client_tls()
        return None if tls is None else replace(tls, server_name=self._config.rollout_server_name)

    async def _forget_all_but(self, targets: set[str]) -> None:
        for target in self._workers.keys() - targets:
            await self._workers.pop(target).close()
