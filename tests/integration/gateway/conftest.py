"""A real gateway on loopback, with a small fake of the rollout service behind its user lane."""

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from onlinerlhf.gateway import app
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.v1 import records_pb2, rollout_pb2, rollout_pb2_grpc
from onlinerlhf_client import AsyncClient


class FakeRollout(rollout_pb2_grpc.RolloutServiceServicer):
    """Answers every prompt with the same two tokens, unless told to misbehave."""

    def __init__(self) -> None:
        self.target = ""
        self.requests: list[rollout_pb2.RolloutGenerateRequest] = []
        self.traceparents: list[str] = []
        self.texts = ("H", "i")
        """Of the two tokens."""
        self.num_failures = 0
        """How many calls fail before their first token."""
        self.breaks_off = False
        """The stream ends after the first token."""
        self.cancelled = asyncio.Event()
        self.goes_on = asyncio.Event()
        """Cleared: the second token waits."""
        self.goes_on.set()

    async def Generate(
        self, request: rollout_pb2.RolloutGenerateRequest, context: Any
    ) -> AsyncIterator[rollout_pb2.RolloutGenerateResponse]:
        self.requests.append(request)
        self.traceparents.append(str(dict(context.invocation_metadata() or ()).get("traceparent", "")))
        if self.num_failures > 0:
            self.num_failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "just restarted")
        yield rollout_pb2.RolloutGenerateResponse(token_ids=[72], logprobs=[-0.5], text=self.texts[0])
        if self.breaks_off:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine died")
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield rollout_pb2.RolloutGenerateResponse(
            token_ids=[105],
            logprobs=[-0.25],
            text=self.texts[1],
            finish_reason=records_pb2.FINISH_REASON_EOS,
            version_spans=[
                records_pb2.VersionSpan(version=3, num_tokens=1),
                records_pb2.VersionSpan(version=4, num_tokens=1),
            ],
        )

    async def GetStatus(
        self, request: rollout_pb2.GetRolloutStatusRequest, context: Any
    ) -> rollout_pb2.GetRolloutStatusResponse:
        return rollout_pb2.GetRolloutStatusResponse(ready=True)


@pytest.fixture
async def rollout() -> AsyncIterator[FakeRollout]:
    """Listens on a port of its own."""
    fake = FakeRollout()
    server = grpc.aio.server()
    rollout_pb2_grpc.add_RolloutServiceServicer_to_server(fake, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield fake
    await server.stop(None)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with one token a byte; the chat template adds four tokens."""
    directory = tmp_path_factory.mktemp("model")
    specials = ["<eos>", "<user>", "<system>", "<assistant>", "<bot>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, *specials])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(directory / "tokenizer.json"))
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}<eos>{% endfor %}<bot>"
    settings = {"eos_token": "<eos>", "pad_token": "<eos>", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


StartGateway = Callable[..., Awaitable["Gateway"]]


MakeKey = Callable[..., Awaitable[str]]


@pytest.fixture
def make_key(run_config: RunConfig) -> MakeKey:
    """Makes API keys of this test's run; each is its text."""

    async def make(
        *scopes: Scope,
        key_class: KeyClass = KeyClass.PLAYGROUND,
        organisation: str = "",
        limits: Limits | None = None,
        run: RunConfig = run_config,
    ) -> str:
        client = redis.connect(run)
        try:
            store = KeyStore(client, RunKeys(run.id))
            wanted = frozenset(scopes) or frozenset({Scope.GENERATE, Scope.FEEDBACK})
            _, text = await store.create(f"test {uuid.uuid4().hex[:8]}", key_class, organisation, wanted, limits)
            return text
        finally:
            await client.aclose()

    return make


class Gateway:
    """A running gateway, and a playground key for it."""

    def __init__(self, target: str, http: str, api_key: str, health: Health, task: "asyncio.Task[None]") -> None:
        self.target = target
        self.http = http
        """host:port of the HTTP front."""
        self.api_key = api_key
        self.health = health
        self._task = task

    def client(self, api_key: str | None = None, **options: Any) -> AsyncClient:
        """Of the Python client, with this gateway's key or another one."""
        return AsyncClient(self.target, api_key=api_key or self.api_key, **options)

    async def stop(self) -> None:
        """Without a drain."""
        self._task.cancel()
        while not self._task.done():
            # Once is not enough, and a task group cancels its tasks only once: on Python 3.11 a cancellation is lost
            # where it meets the end of a wait_for, which the Redis client uses.
            background = [task for task in asyncio.all_tasks() if task.get_name().startswith(("gateway ", "intake "))]
            for task in background:
                task.cancel()
            await asyncio.wait([self._task], timeout=0.2)
        with suppress(asyncio.CancelledError):
            await self._task


@pytest.fixture
async def start_gateway(
    run_config: RunConfig,
    model_dir: Path,
    rollout: FakeRollout,
    unused_port: Callable[[], int],
    make_key: MakeKey,
) -> AsyncIterator[StartGateway]:
    """Starts gateways of this test's run, ready unless told otherwise."""
    running: list[Gateway] = []

    async def start(*, run: RunConfig = run_config, api_key: str | None = None, **settings: Any) -> Gateway:
        listen, http = (f"127.0.0.1:{unused_port()}" for _ in range(2))
        settings = {
            "rollout_target": rollout.target,
            "feed_poll_seconds": 0.05,
            "valid_share": 0.0,
            "test_share": 0.0,
            "http_listen": http,
            **settings,
        }
        config = GatewayConfig(model_dir=model_dir, listen=listen, **settings)
        health = Health("gateway")
        api_key = api_key or await make_key(run=run)
        task = asyncio.create_task(app.serve(run, config, health=health), name="gateway")
        gateway = Gateway(listen, http, api_key, health, task)
        running.append(gateway)
        # Without a component yet, it would count as ready.
        changed = health.changed
        async with asyncio.timeout(10):
            await changed.wait()
        await health.wait_ready(10)
        return gateway

    yield start
    for gateway in running:
        await gateway.stop()


@pytest.fixture
def unused_port() -> Callable[[], int]:
    """Ports that nobody listens on now."""

    def port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return port
