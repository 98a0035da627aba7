"""The rollout service's part of an answer's trace, over gRPC, with an engine that samples nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from integration.spans import ids_in, parent_of, tracing_in_memory
from integration.streams.support import eventually
from onlinerlhf.core.samples import FinishReason, VersionSpan
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.evidence import Piece
from onlinerlhf.v1 import rollout_pb2, rollout_pb2_grpc

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


class FakeEngine:
    """One piece to every prompt."""

    version = 4
    max_model_len = 64

    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[Piece]:
        spans = (VersionSpan(version=4, num_tokens=1),)
        yield Piece(token_ids=(7,), logprobs=(-0.5,), text="xyzzy", finish_reason=FinishReason.EOS, version_spans=spans)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
async def test_sampling_for_a_user_is_a_child_of_the_callers_span_and_holds_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not at the top: it takes vLLM seconds to load.
    from onlinerlhf.rollout.service import RolloutServicer

    places = {"model_dir": tmp_path, "learner_target": "nowhere", "staging_dir": tmp_path}
    config = RolloutConfig.model_validate(places)
    engine = cast(Any, FakeEngine())
    server = grpc.aio.server()
    servicer = RolloutServicer(engine, cast(Any, None), cast(Any, None), config, refusal=lambda version: "")
    rollout_pb2_grpc.add_RolloutServiceServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    request = rollout_pb2.RolloutGenerateRequest(prompt_token_ids=[1, 2], max_tokens=4, temperature=1.0)
    with tracing_in_memory(monkeypatch) as spans:
        async with grpc.aio.insecure_channel(target) as channel:
            stub = rollout_pb2_grpc.RolloutServiceStub(channel)
            call = stub.Generate(request, timeout=5, metadata=[("traceparent", PARENT)])
            assert [reply.text async for reply in call] == ["xyzzy"]
            await eventually(lambda: spans.all("rollout.generate"))
        [generated] = spans.named("rollout.generate")
    await server.stop(None)
    assert parent_of(generated) == ids_in(PARENT)
    assert dict(generated.attributes or {}) == {"version": 4}
    assert "xyzzy" not in generated.to_json()
