"""protobuf <-> core: what goes in comes out, and what is broken is refused without its text."""

from dataclasses import replace

import pytest

from onlinerlhf.core.errors import MalformedRecord
from onlinerlhf.core.samples import FinishReason, Rollout, RolloutGroup, SamplingSpec, ScoredGroup, UseCase, VersionSpan
from onlinerlhf.core.weights import Manifest, TensorEntry
from onlinerlhf.runtime import wire
from onlinerlhf.v1 import records_pb2, weights_pb2
from prompts import a_prompt

PROMPT = a_prompt(
    sample_id="s.1",
    prompt_id="s",
    text="Grüße an 北京",
    epoch=1,
    admitted_at_seconds=1.5,
    use_case=UseCase.CHAT,
    use_case_source="client",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
GROUP = RolloutGroup(
    prompt=PROMPT,
    sampling=SamplingSpec(num_responses=2, max_tokens=16, temperature=0.5, top_p=0.25, stop_token_ids=(9,)),
    rollouts=(
        Rollout(
            token_ids=(4, 5, 9),
            behaviour_logprobs=(-0.5, -0.25, 0.0),
            version_spans=(VersionSpan(version=3, num_tokens=2), VersionSpan(version=4, num_tokens=1)),
            finish_reason=FinishReason.EOS,
        ),
        Rollout(
            token_ids=(7,),
            behaviour_logprobs=(-2.0,),
            version_spans=(VersionSpan(version=4, num_tokens=1),),
            finish_reason=FinishReason.LENGTH,
        ),
    ),
    worker_id="rollout-0",
)
MANIFEST = Manifest(
    version=4,
    parent=3,
    tensors=(
        TensorEntry(name="a", dtype="F32", shape=(2, 3), num_bytes=24, sha256=b"1" * 32),
        TensorEntry(name="b", dtype="BF16", shape=(), num_bytes=2, sha256=b"2" * 32),
    ),
    digest=b"3" * 32,
)


def test_records_come_back_as_they_were() -> None:
    assert wire.load_prompt(wire.dump_prompt(PROMPT)) == PROMPT
    assert wire.load_group(wire.dump_group(GROUP)) == GROUP
    scored = ScoredGroup(group=GROUP, scores=(0.1, -3.5), reward_model_version="rm-1")
    assert wire.load_scored(wire.dump_scored(scored)) == scored
    assert wire.manifest_from_proto(wire.manifest_to_proto(MANIFEST)) == MANIFEST


@pytest.mark.parametrize("load", [wire.load_prompt, wire.load_group, wire.load_scored])
@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"what is my secret?"])
def test_bytes_that_are_no_record_are_refused_without_quoting_them(load: object, data: bytes) -> None:
    with pytest.raises(MalformedRecord) as caught:
        load(data)  # type: ignore[operator]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("field", ["sample_id", "prompt_id", "owner", "tenant", "token_ids"])
def test_a_prompt_lacks_nothing(field: str) -> None:
    message = wire.prompt_to_proto(PROMPT)
    message.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(MalformedRecord, match=f"without {field}"):
        wire.prompt_from_proto(message)


def test_a_prompt_is_nothing_without_proof_of_consent() -> None:
    for field in ("key_class", "notice_version", "shown_at_seconds"):
        message = wire.prompt_to_proto(PROMPT)
        message.consent.ClearField(field)
        with pytest.raises(MalformedRecord, match="a consent proof"):
            wire.prompt_from_proto(message)
    message = wire.prompt_to_proto(PROMPT)
    message.consent.key_class = "production"
    with pytest.raises(MalformedRecord, match="not of the playground class"):
        wire.prompt_from_proto(message)
    message = wire.prompt_to_proto(PROMPT)
    message.use_case = "espionage"
    with pytest.raises(MalformedRecord, match="unknown use case"):
        wire.prompt_from_proto(message)


def test_a_group_that_contradicts_itself_is_refused() -> None:
    def broken(**changes: object) -> bytes:
        message = wire.group_to_proto(GROUP)
        for path, value in changes.items():
            setattr(message.rollouts[0] if path == "finish_reason" else message.sampling, path, value)
        return message.SerializeToString()

    with pytest.raises(MalformedRecord, match="unknown finish reason 0"):
        wire.load_group(broken(finish_reason=0))
    with pytest.raises(MalformedRecord, match=r"temperature 0\.0"):
        wire.load_group(broken(temperature=0.0))
    message = wire.group_to_proto(GROUP)
    del message.rollouts[0].behaviour_logprobs[0]
    with pytest.raises(MalformedRecord, match="3 tokens but 2 behaviour logprobs"):
        wire.load_group(message.SerializeToString())
    message = wire.group_to_proto(GROUP)
    message.rollouts[0].version_spans[0].version = 0
    with pytest.raises(MalformedRecord, match="by version 0"):
        wire.load_group(message.SerializeToString())


def test_a_score_missing_is_refused_not_invented() -> None:
    message = records_pb2.ScoredGroup(group=wire.group_to_proto(GROUP), scores=[1.0], reward_model_version="rm-1")
    with pytest.raises(MalformedRecord, match="2 rollouts but 1 scores"):
        wire.load_scored(message.SerializeToString())


def test_a_manifest_out_of_order_or_without_checksums_is_refused() -> None:
    a, b = MANIFEST.tensors
    for bad in (
        replace(MANIFEST, tensors=(b, a)),
        replace(MANIFEST, tensors=(a, a)),
        replace(MANIFEST, parent=4),
        replace(MANIFEST, version=0, parent=0),
        replace(MANIFEST, digest=b"short"),
        replace(MANIFEST, tensors=(replace(a, sha256=b""),)),
    ):
        with pytest.raises(MalformedRecord):
            wire.manifest_from_proto(wire.manifest_to_proto(bad))
    with pytest.raises(MalformedRecord):
        wire.manifest_from_proto(weights_pb2.Manifest())
