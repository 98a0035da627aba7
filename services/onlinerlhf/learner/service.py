"""LearnerService: progress, and checkpoints on request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from onlinerlhf.core.errors import WaitTimeout
from onlinerlhf.learner.checkpoint import Progress
from onlinerlhf.learner.status import Status
from onlinerlhf.v1 import learner_pb2, learner_pb2_grpc

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

MAX_WAIT_SECONDS = 300.0


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """Reads the status that the loop keeps, and asks it for checkpoints."""

    def __init__(self, status: Status, checkpoint: Callable[[], Awaitable[Progress]]) -> None:
        self._status = status
        self._checkpoint = checkpoint

    async def GetProgress(
        self, request: learner_pb2.GetProgressRequest, context: "Context"
    ) -> learner_pb2.GetProgressResponse:
        """What the loop is doing now."""
        status = self._status
        return learner_pb2.GetProgressResponse(
            step=status.step,
            version=status.version,
            checkpoint_step=status.checkpoint_step,
            metrics=status.newest,
            phase=status.phase,
            num_collected=status.num_collected,
            batch_size=status.batch_size,
            idle_share=status.idle_share,
            last_error=status.last_error,
            observed_seconds=status.observed_seconds,
        )

    async def Checkpoint(
        self, request: learner_pb2.CheckpointRequest, context: "Context"
    ) -> learner_pb2.CheckpointResponse:
        """Wait for the step in progress and the checkpoint after it."""
        remaining = context.time_remaining()
        seconds = MAX_WAIT_SECONDS if remaining is None else min(MAX_WAIT_SECONDS, remaining)
        try:
            async with asyncio.timeout(seconds):
                progress = await self._checkpoint()
        except TimeoutError as error:
            raise WaitTimeout(f"no checkpoint within {seconds:.0f} s; the learner is {self._status.phase}") from error
        return learner_pb2.CheckpointResponse(step=progress.step, version=progress.version)
