"""Workers and a learner that answer on loopback, each worker on an address of its own as pods have."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Never

import grpc

from onlinerlhf.v1 import learner_pb2, learner_pb2_grpc, rollout_pb2, rollout_pb2_grpc


class FakeWorker(rollout_pb2_grpc.RolloutServiceServicer):
    """Serves a version to some users."""

    def __init__(self, *, version: int, users: int, reason: str = "") -> None:
        self.status = rollout_pb2.GetRolloutStatusResponse(
            version=version, ready=not reason, reason=reason, num_user_requests=users
        )
        self.num_asked = 0

    async def GetStatus(
        self, request: rollout_pb2.GetRolloutStatusRequest, context: object
    ) -> rollout_pb2.GetRolloutStatusResponse:
        """What it was made with."""
        self.num_asked += 1
        return self.status

    def Generate(self, request: rollout_pb2.RolloutGenerateRequest, context: object) -> Never:
        """Nobody asks."""
        raise NotImplementedError


class FakeLearner(learner_pb2_grpc.LearnerServiceServicer):
    """Is at a version."""

    async def GetProgress(
        self, request: learner_pb2.GetProgressRequest, context: object
    ) -> learner_pb2.GetProgressResponse:
        """Version 7, 1.5 behind."""
        return learner_pb2.GetProgressResponse(version=7, metrics={"staleness_mean": 1.5})

    def Checkpoint(self, request: learner_pb2.CheckpointRequest, context: object) -> Never:
        """Nobody asks."""
        raise NotImplementedError


@asynccontextmanager
async def serving(
    workers: Sequence[FakeWorker], *, port: int, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[list[str]]:
    """The workers' addresses; all of them listen on one port."""
    async with AsyncExitStack() as stack:
        addresses = []
        for number, worker in enumerate(workers):
            address = f"127.0.0.{number + 2}"
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            rollout_pb2_grpc.add_RolloutServiceServicer_to_server(worker, server)
            where = f"{address}:{port}"
            bound = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
            assert bound == port
            await server.start()
            stack.push_async_callback(server.stop, None)
            addresses.append(address)
        yield addresses


@asynccontextmanager
async def learning() -> AsyncIterator[str]:
    """The target of a learner."""
    server = grpc.aio.server()
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(FakeLearner(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
