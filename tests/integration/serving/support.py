"""A service to call: what it does is asked for in user_id."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from onlinerlhf.core import errors
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.serving import Background, Register, run_service
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from redis_servers import free_port

SECRET = "what is my secret?"


class UserCap(errors.LimitReached):
    """A room's own error with its own word."""

    reason = "user_cap"


ERRORS: dict[str, Exception] = {
    "invalid": errors.InvalidInput("empty prompt", reason="empty"),
    "malformed": errors.MalformedRecord("3 bytes that are no Prompt"),
    "exists": errors.AlreadyExists("sample exists"),
    "conflict": errors.IdempotencyConflict("key used before"),
    "consent": errors.ConsentMissing("no consent"),
    "not_found": errors.NotFound("no sample"),
    "limit": errors.LimitReached("200 prompts"),
    "cap": UserCap("200 prompts"),
    "unavailable": errors.Unavailable("redis is away"),
    "timeout": errors.WaitTimeout("waited 3 s for redis"),
    "weights": errors.WeightsRefused("not applied"),
    "checksum": errors.ChecksumMismatch("tensor w"),
    "base": errors.BaseMissing("version 3"),
    "nan": errors.NonFiniteWeights("tensor w"),
    "checkpoint": errors.CheckpointError("disk full"),
    "loss": errors.NonFiniteLoss("step 3"),
    "bug": ValueError(SECRET),
}


class Servicer(gateway_pb2_grpc.GatewayServiceServicer):
    """Unary, server streaming and bidirectional."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.num_failures_left = 0
        self.num_generated = 0

    async def SubmitPrompt(self, request: gateway_pb2.SubmitPromptRequest, context: Any) -> Any:
        self.started.set()
        await self._do(request.user_id, context)
        return gateway_pb2.SubmitPromptResponse(receipt=gateway_pb2.Receipt(sample_id="s1"))

    async def Generate(self, request: gateway_pb2.GenerateRequest, context: Any) -> Any:
        self.num_generated += 1
        yield gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text="one"))
        await self._do(request.user_id, context)
        yield gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text="two"))

    async def SubmitPrompts(self, request_iterator: Any, context: Any) -> Any:
        async for request in request_iterator:
            await self._do(request.user_id, context)
            yield gateway_pb2.SubmitPromptsReply(idempotency_key=request.idempotency_key)

    async def GetSample(self, request: gateway_pb2.GetSampleRequest, context: Any) -> Any:
        raise errors.NotFound("no such sample")

    async def SubmitFeedback(self, request: gateway_pb2.SubmitFeedbackRequest, context: Any) -> Any:
        raise errors.NotFound("no such sample")

    async def WithdrawConsent(self, request: gateway_pb2.WithdrawConsentRequest, context: Any) -> Any:
        raise errors.NotFound("no such user")

    async def _do(self, what: str, context: Any) -> None:
        if what == "hang":
            await self.release.wait()
        elif what == "abort":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "by hand")
        elif what == "flaky" and self.num_failures_left:
            self.num_failures_left -= 1
            raise errors.Unavailable("try again")
        elif what in ERRORS:
            raise ERRORS[what]


class Running:
    """A service in this process."""

    def __init__(self, address: str, servicer: Servicer, health: Health, task: "asyncio.Task[None]") -> None:
        self.address = address
        self.servicer = servicer
        self.health = health
        self.task = task


@asynccontextmanager
async def running(
    *,
    background: Mapping[str, Background] | None = None,
    metrics_port: int = 0,
    address: str | None = None,
    register: Register | None = None,
    **settings: float | str | Path,
) -> AsyncIterator[Running]:
    """Serve on a free port until the block ends, or until terminate()."""
    servicer, health = Servicer(), Health("test")
    address = address or f"127.0.0.1:{free_port()}"
    config = ServiceConfig.model_validate(
        {"listen": address, "drain_seconds": 3.0, "metrics_port": metrics_port, **settings}
    )

    def register_all(server: grpc.aio.Server) -> Sequence[str]:
        if register is not None:
            return register(server)
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)
        return [gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name]

    async def run() -> None:
        await run_service("test", config, health=health, register=register_all, background=background or {})

    task = asyncio.create_task(run(), name="service")
    try:
        await _until_open(address, task)
        yield Running(address, servicer, health, task)
    finally:
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([task])


def terminate() -> None:
    """What a supervisor sends. Ends the service that was started last."""
    os.kill(os.getpid(), signal.SIGTERM)


async def _until_open(address: str, task: "asyncio.Task[None]") -> None:
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(10):
        while not task.done():
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
