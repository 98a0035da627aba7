"""A step is a trace of its own, linked to those of the samples it used."""

from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from integration.learner.learning import Source, learner_config, learning, scored_group
from integration.spans import ids_in, parent_of, tracing_in_memory
from integration.streams.support import eventually
from onlinerlhf.core.samples import ScoredGroup
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.streams import Streams

TRACES = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2, 3)]


def traced(sample_id: str, traceparent: str) -> ScoredGroup:
    scored = scored_group(sample_id)
    return replace(scored, group=replace(scored.group, prompt=replace(scored.group.prompt, traceparent=traceparent)))


async def test_a_step_links_to_the_traces_of_its_samples_and_to_nothing_where_there_is_none(
    client: Redis, keys: RunKeys, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(client, keys)
    for number, traceparent in enumerate([*TRACES, ""]):
        await source.put(f"p{number}.0", wire.dump_scored(traced(f"p{number}.0", traceparent)))
    with tracing_in_memory(monkeypatch) as spans:
        async with learning(client, keys, learner_config(tmp_path)) as learner:
            await learner.until(lambda: learner.status.checkpoint_step == 1)
            await eventually(lambda: spans.all("learner.step"))
        [step] = spans.named("learner.step")
    linked = sorted(f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in step.links)
    assert linked == [ids_in(traceparent) for traceparent in TRACES]
    assert parent_of(step) == "" and dict(step.attributes or {}) == {"version": 1}
    assert "not to be seen" not in step.to_json()
