"""What a worker says of itself while it answers users."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from onlinerlhf.core.errors import StartupError
from onlinerlhf.core.samples import FinishReason, VersionSpan
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.evidence import Piece
from onlinerlhf.v1 import rollout_pb2, rollout_pb2_grpc


class SlowEngine:
    """Ends an answer when it is told to."""

    version = 4
    max_model_len = 64

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    def trouble(self) -> str:
        return ""

    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[Piece]:
        spans = (VersionSpan(version=4, num_tokens=1),)
        yield Piece(token_ids=(7,), logprobs=(-0.5,), text="a", finish_reason=None, version_spans=())
        await self.may_end.wait()
        yield Piece(token_ids=(7,), logprobs=(-0.5,), text="b", finish_reason=FinishReason.EOS, version_spans=spans)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
async def test_a_worker_counts_the_users_that_it_answers(tmp_path: Path) -> None:
    # Not at the top: it takes vLLM seconds to load.
    from onlinerlhf.rollout.service import RolloutServicer

    places = {"model_dir": tmp_path, "learner_target": "nowhere", "staging_dir": tmp_path}
    engine = SlowEngine()
    idle = SimpleNamespace(num_in_flight=0, num_tokens=0, tokens_per_second=0.0, idle_share=0.0, observed_seconds=0.0)
    updates = SimpleNamespace(num_applied=0, num_refused=0, pause_seconds=0.0, last_refusal="")
    servicer = RolloutServicer(
        cast(Any, engine),
        cast(Any, updates),
        cast(Any, idle),
        RolloutConfig.model_validate(places),
        refusal=lambda version: "",
    )
    server = grpc.aio.server()
    rollout_pb2_grpc.add_RolloutServiceServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(target) as channel:
        stub = rollout_pb2_grpc.RolloutServiceStub(channel)

        async def num_users() -> int:
            return (await stub.GetStatus(rollout_pb2.GetRolloutStatusRequest(), timeout=5)).num_user_requests

        request = rollout_pb2.RolloutGenerateRequest(prompt_token_ids=[1, 2], max_tokens=4, temperature=1.0)
        calls = [stub.Generate(request, timeout=5) for _ in range(3)]
        for call in calls:
            await call.read()
        assert await num_users() == 3
        engine.may_end.set()
        for call in calls:
            reply = await call.read()
            assert isinstance(reply, rollout_pb2.RolloutGenerateResponse) and reply.text == "b"
            assert await call.read() is grpc.aio.EOF
        assert await num_users() == 0
    await server.stop(None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
async def test_an_engine_that_dies_at_its_first_batch_is_a_worker_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onlinerlhf.rollout import engine
    from onlinerlhf.rollout.usage import Usage

    async def die(self: engine.Engine) -> None:
        raise ExceptionGroup("prompts", [RuntimeError("EngineCore: no compiler\nand more")])

    monkeypatch.setattr(engine, "_engine_args", lambda config: None)
    monkeypatch.setattr("onlinerlhf.rollout.engine.AsyncLLM.from_engine_args", lambda args: None)
    monkeypatch.setattr(engine.Engine, "_warm_up", die)
    places = {"model_dir": tmp_path, "learner_target": "nowhere", "staging_dir": tmp_path}
    with pytest.raises(StartupError, match=r"vLLM cannot start on .*: EngineCore: no compiler$"):
        await engine.Engine(RolloutConfig.model_validate(places), usage=Usage()).start()
