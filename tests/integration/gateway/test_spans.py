"""Traces over real hops: an answer over gRPC, a submission through Redis to its score; none of them holds a text."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from redis.asyncio import Redis

from integration.gateway.gateway_process import gateway_process
from integration.spans import Spans, id_of, ids_in, parent_of, tracing_in_memory
from integration.streams.support import eventually
from onlinerlhf.core.samples import FinishReason, Rollout, SamplingSpec, Stage, VersionSpan
from onlinerlhf.reward.config import RewardConfig
from onlinerlhf.reward.engine import ScoreItem
from onlinerlhf.reward.worker import RewardWorker
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.worker import RolloutWorker
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import Consumer, Streams
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import AsyncClient, Consent
from redis_servers import free_port

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, Gateway, MakeKey, StartGateway

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
SECRET = "xyzzy"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    with tracing_in_memory(monkeypatch) as found:
        yield found


class FakeSampler:
    """Two tokens to every prompt."""

    version = 1

    async def sample(self, prompt_token_ids: Sequence[int], spec: SamplingSpec, *, request_id: str) -> Any:
        rollout = Rollout(
            token_ids=(7, 8),
            behaviour_logprobs=(-0.5, -1.5),
            version_spans=(VersionSpan(version=1, num_tokens=2),),
            finish_reason=FinishReason.EOS,
        )
        return (rollout,) * spec.num_responses


class FakeScorer:
    """Everything is worth the same."""

    version = "even-1"

    async def score(self, items: Sequence[ScoreItem]) -> list[float]:
        return [0.5] * len(items)


@asynccontextmanager
async def pipeline(client: Redis, keys: RunKeys, patience: Patience, directory: Path) -> AsyncIterator[None]:
    """The rollout and the reward worker."""
    places = {"model_dir": directory, "learner_target": "nowhere", "staging_dir": directory}
    streams = Streams(client, keys)
    prompts = Consumer(client, keys, Stage.PROMPTS, name="rollout-0", patience=patience, lease_seconds=5)
    rollouts = Consumer(client, keys, Stage.ROLLOUTS, name="reward-0", patience=patience, lease_seconds=5)
    sampling = RolloutWorker(
        prompts, streams, FakeSampler(), RolloutConfig.model_validate(places), refusal=lambda version: ""
    )
    scoring = RewardWorker(rollouts, streams, FakeScorer(), RewardConfig(model_dir=directory))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(sampling.run(stop), name="rollout worker")
        group.create_task(scoring.run(stop), name="reward worker")
        yield
        stop.set()


async def submit(gateway: "Gateway") -> None:
    """As a client that traces."""
    consent = gateway_pb2.Consent(notice_version="1", shown_at_seconds=time.time() - 60)
    request = gateway_pb2.SubmitPromptRequest(
        user_id=SECRET, text=f"tell {SECRET}".encode(), idempotency_key=SECRET, consent=consent
    )
    metadata = [("authorization", f"Bearer {gateway.api_key}"), ("traceparent", PARENT)]
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        await gateway_pb2_grpc.GatewayServiceStub(channel).SubmitPrompt(request, metadata=metadata, timeout=5)


async def test_an_answers_trace_goes_from_its_client_to_the_rollout_worker(
    start_gateway: "StartGateway", rollout: "FakeRollout", spans: Spans
) -> None:
    gateway = await start_gateway()
    metadata = [("authorization", f"Bearer {gateway.api_key}"), ("traceparent", PARENT)]
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        question = gateway_pb2.GenerateRequest(user_id=SECRET, text=f"tell {SECRET}".encode())
        call = gateway_pb2_grpc.GatewayServiceStub(channel).Generate(question, metadata=metadata, timeout=5)
        assert len([event async for event in call]) == 4
    await eventually(lambda: spans.all("gateway.answer"))
    [answer] = spans.named("gateway.answer")
    assert parent_of(answer) == ids_in(PARENT)
    assert [ids_in(each) for each in rollout.traceparents] == [id_of(answer)]
    assert dict(answer.attributes or {}) == {"num_tokens": 2}
    assert SECRET not in answer.to_json()


async def test_a_submissions_trace_goes_through_redis_to_sampling_and_scoring(
    start_gateway: "StartGateway", spans: Spans, client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    await submit(gateway)
    async with pipeline(client, keys, patience, tmp_path):
        await eventually(lambda: spans.all("gateway.submission", "rollout.sample", "reward.score"))
    [submission] = spans.named("gateway.submission")
    [sampled], [scored] = spans.named("rollout.sample"), spans.named("reward.score")
    entries: Any = await client.xrange(keys.stream(Stage.SCORED))
    [(_, fields)] = entries
    kept = wire.load_scored(fields[b"data"]).group.prompt
    assert ids_in(kept.traceparent) == id_of(submission) == parent_of(sampled) == parent_of(scored)
    assert parent_of(submission) == ids_in(PARENT)
    assert {span.context.trace_id for span in (submission, sampled, scored)} == {int("ab" * 16, 16)}
    assert dict(sampled.attributes or {}) == {"sample_id": kept.sample_id, "version": 1}
    assert all(SECRET not in span.to_json() for span in (submission, sampled, scored))


async def test_a_submission_that_is_refused_is_a_span_with_the_errors_type_and_no_more(
    start_gateway: "StartGateway", spans: Spans
) -> None:
    gateway = await start_gateway(notice_versions=("2",))
    with pytest.raises(grpc.aio.AioRpcError):
        await submit(gateway)
    await eventually(lambda: spans.all("gateway.submission"))
    [submission] = spans.named("gateway.submission")
    assert submission.status.description == "ConsentMissing" and SECRET not in submission.to_json()


async def test_an_answer_that_its_client_leaves_is_a_span_that_says_so(
    start_gateway: "StartGateway", rollout: "FakeRollout", spans: Spans
) -> None:
    gateway = await start_gateway()
    rollout.goes_on.clear()
    async with gateway.client() as user:
        async with user.generate("one", user_id="ada") as stream:
            await anext(stream)
        await eventually(lambda: spans.all("gateway.answer"))
    [answer] = spans.named("gateway.answer")
    assert answer.status.description == "cancelled" and dict(answer.attributes or {}) == {"num_tokens": 1}


async def test_a_collector_that_is_not_there_is_nobodys_trouble(
    tmp_path: Path,
    run_config: RunConfig,
    model_dir: Path,
    rollout: "FakeRollout",
    make_key: "MakeKey",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with (
        gateway_process(tmp_path, run_config, model_dir=model_dir, rollout_target=rollout.target) as gateway,
        AsyncClient(gateway.target, api_key=await make_key()) as user,
    ):
        for number in range(20):
            started = time.monotonic()
            assert (await user.answer(f"{SECRET} {number}", user_id="ada", timeout=5.0)).text == "Hi"
            assert (await user.submit(f"{SECRET} {number}", user_id=SECRET, consent=Consent.shown_now("1"))).sample_id
            assert time.monotonic() - started < 2.0
        stopping = time.monotonic()
    print("stopped in", time.monotonic() - stopping)
    assert time.monotonic() - stopping < 10.0
    assert SECRET not in gateway.output()
    assert rollout.traceparents[0].startswith("00-")
