"""protobuf <-> core. What comes in is checked here; MalformedRecord says what is wrong with it, never its text."""

import math
from itertools import pairwise
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from onlinerlhf.core.errors import MalformedRecord
from onlinerlhf.core.samples import (
    ConsentProof,
    FinishReason,
    Prompt,
    Rollout,
    RolloutGroup,
    SamplingSpec,
    ScoredGroup,
    UseCase,
    VersionSpan,
)
from onlinerlhf.core.weights import Manifest, TensorEntry
from onlinerlhf.v1 import records_pb2, weights_pb2

M = TypeVar("M", bound=Message)

_DIGEST_BYTES: Final = 32
_FINISH_TO_PROTO: Final = {
    FinishReason.EOS: records_pb2.FINISH_REASON_EOS,
    FinishReason.LENGTH: records_pb2.FINISH_REASON_LENGTH,
    FinishReason.STOP: records_pb2.FINISH_REASON_STOP,
}
_FINISH_FROM_PROTO: Final = {number: reason for reason, number in _FINISH_TO_PROTO.items()}


def dump_prompt(prompt: Prompt) -> bytes:
    """What travels in [prompts]."""
    return prompt_to_proto(prompt).SerializeToString()


def load_prompt(data: bytes) -> Prompt:
    """Reverse of dump_prompt."""
    return prompt_from_proto(_parse(records_pb2.Prompt, data))


def dump_group(group: RolloutGroup) -> bytes:
    """What travels in [rollouts]."""
    return group_to_proto(group).SerializeToString()


def load_group(data: bytes) -> RolloutGroup:
    """Reverse of dump_group; log-probabilities come back rounded to float32."""
    return group_from_proto(_parse(records_pb2.RolloutGroup, data))


def dump_scored(scored: ScoredGroup) -> bytes:
    """What travels in [scored]."""
    return records_pb2.ScoredGroup(
        group=group_to_proto(scored.group), scores=scored.scores, reward_model_version=scored.reward_model_version
    ).SerializeToString()


def load_scored(data: bytes) -> ScoredGroup:
    """Reverse of dump_scored."""
    message = _parse(records_pb2.ScoredGroup, data)
    return ScoredGroup(
        group=group_from_proto(message.group),
        scores=tuple(message.scores),
        reward_model_version=message.reward_model_version,
    )


def prompt_to_proto(prompt: Prompt) -> records_pb2.Prompt:
    """Encode."""
    return records_pb2.Prompt(
        sample_id=prompt.sample_id,
        prompt_id=prompt.prompt_id,
        owner=prompt.owner,
        tenant=prompt.tenant,
        consent=records_pb2.ConsentProof(
            key_class=prompt.consent.key_class,
            notice_version=prompt.consent.notice_version,
            shown_at_seconds=prompt.consent.shown_at_seconds,
        ),
        text=prompt.text,
        token_ids=prompt.token_ids,
        epoch=prompt.epoch,
        admitted_at_seconds=prompt.admitted_at_seconds,
        use_case=prompt.use_case,
        use_case_source=prompt.use_case_source,
        traceparent=prompt.traceparent,
        pii_kinds=prompt.pii_kinds,
    )


def prompt_from_proto(message: records_pb2.Prompt) -> Prompt:
    """Decode. A prompt has ids, an owner, proof of consent, at least one token and a finite time."""
    for name in ("sample_id", "prompt_id", "owner", "tenant", "token_ids"):
        if not getattr(message, name):
            raise MalformedRecord(f"a prompt without {name}")
    if not math.isfinite(message.admitted_at_seconds):
        raise MalformedRecord("a prompt admitted at no finite time")
    return Prompt(
        sample_id=message.sample_id,
        prompt_id=message.prompt_id,
        owner=message.owner,
        tenant=message.tenant,
        consent=ConsentProof(
            key_class=message.consent.key_class,
            notice_version=message.consent.notice_version,
            shown_at_seconds=message.consent.shown_at_seconds,
        ),
        text=message.text,
        token_ids=tuple(message.token_ids),
        epoch=message.epoch,
        admitted_at_seconds=message.admitted_at_seconds,
        use_case=_use_case(message.use_case),
        use_case_source=message.use_case_source,
        traceparent=message.traceparent,
        pii_kinds=tuple(message.pii_kinds),
    )


def _use_case(word: str) -> UseCase:
    try:
        return UseCase(word)
    except ValueError:
        raise MalformedRecord("a prompt with an unknown use case") from None


def sampling_to_proto(sampling: SamplingSpec) -> records_pb2.SamplingSpec:
    """Encode."""
    return records_pb2.SamplingSpec(
        num_responses=sampling.num_responses,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop_token_ids=sampling.stop_token_ids,
    )


def sampling_from_proto(message: records_pb2.SamplingSpec) -> SamplingSpec:
    """Decode. Temperature 0 and top_p 0 would be absent fields: neither has a density to learn from."""
    if message.num_responses < 1 or message.max_tokens < 1:
        raise MalformedRecord(f"{message.num_responses} responses of up to {message.max_tokens} tokens")
    if not (0 < message.temperature < math.inf and 0 < message.top_p <= 1):
        raise MalformedRecord(f"temperature {message.temperature}, top_p {message.top_p}")
    return SamplingSpec(
        num_responses=message.num_responses,
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_p=message.top_p,
        stop_token_ids=tuple(message.stop_token_ids),
    )


def span_to_proto(span: VersionSpan) -> records_pb2.VersionSpan:
    """Encode."""
    return records_pb2.VersionSpan(version=span.version, num_tokens=span.num_tokens)


def span_from_proto(message: records_pb2.VersionSpan) -> VersionSpan:
    """Decode. Versions start at 1, and a span covers at least one token."""
    if message.version < 1 or message.num_tokens < 1:
        raise MalformedRecord(f"a span of {message.num_tokens} tokens by version {message.version}")
    return VersionSpan(version=message.version, num_tokens=message.num_tokens)


def finish_to_proto(reason: FinishReason) -> records_pb2.FinishReason.ValueType:
    """Encode."""
    return _FINISH_TO_PROTO[reason]


def finish_from_proto(number: int) -> FinishReason:
    """Decode."""
    for known, reason in _FINISH_FROM_PROTO.items():
        if number == known:
            return reason
    raise MalformedRecord(f"unknown finish reason {number}")


def rollout_to_proto(rollout: Rollout) -> records_pb2.Rollout:
    """Encode."""
    return records_pb2.Rollout(
        token_ids=rollout.token_ids,
        behaviour_logprobs=rollout.behaviour_logprobs,
        version_spans=[span_to_proto(span) for span in rollout.version_spans],
        finish_reason=finish_to_proto(rollout.finish_reason),
    )


def rollout_from_proto(message: records_pb2.Rollout) -> Rollout:
    """Decode; Rollout itself checks that its parts agree."""
    return Rollout(
        token_ids=tuple(message.token_ids),
        behaviour_logprobs=tuple(message.behaviour_logprobs),
        version_spans=tuple(span_from_proto(span) for span in message.version_spans),
        finish_reason=finish_from_proto(message.finish_reason),
    )


def group_to_proto(group: RolloutGroup) -> records_pb2.RolloutGroup:
    """Encode."""
    return records_pb2.RolloutGroup(
        prompt=prompt_to_proto(group.prompt),
        sampling=sampling_to_proto(group.sampling),
        rollouts=[rollout_to_proto(rollout) for rollout in group.rollouts],
        worker_id=group.worker_id,
    )


def group_from_proto(message: records_pb2.RolloutGroup) -> RolloutGroup:
    """Decode."""
    return RolloutGroup(
        prompt=prompt_from_proto(message.prompt),
        sampling=sampling_from_proto(message.sampling),
        rollouts=tuple(rollout_from_proto(rollout) for rollout in message.rollouts),
        worker_id=message.worker_id,
    )


def manifest_to_proto(manifest: Manifest) -> weights_pb2.Manifest:
    """Encode."""
    tensors = [
        weights_pb2.TensorEntry(
            name=entry.name, dtype=entry.dtype, shape=entry.shape, num_bytes=entry.num_bytes, sha256=entry.sha256
        )
        for entry in manifest.tensors
    ]
    return weights_pb2.Manifest(
        version=manifest.version, parent=manifest.parent, tensors=tensors, digest=manifest.digest
    )


def manifest_from_proto(message: weights_pb2.Manifest) -> Manifest:
    """Decode. Tensors come in name order, each once; a parent is older than its child."""
    if message.version < 1 or message.parent >= message.version:
        raise MalformedRecord(f"a manifest of version {message.version} with parent {message.parent}")
    if len(message.digest) != _DIGEST_BYTES:
        raise MalformedRecord(f"a manifest digest of {len(message.digest)} bytes")
    names = [entry.name for entry in message.tensors]
    if any(left >= right for left, right in pairwise(names)):
        raise MalformedRecord("the tensors of a manifest are not in name order")
    return Manifest(
        version=message.version,
        parent=message.parent,
        tensors=tuple(_tensor_from_proto(entry) for entry in message.tensors),
        digest=message.digest,
    )


def _tensor_from_proto(message: weights_pb2.TensorEntry) -> TensorEntry:
    if not message.name or not message.dtype or len(message.sha256) != _DIGEST_BYTES:
        raise MalformedRecord("a tensor without name, dtype or checksum")
    return TensorEntry(
        name=message.name,
        dtype=message.dtype,
        shape=tuple(message.shape),
        num_bytes=message.num_bytes,
        sha256=message.sha256,
    )


def _parse(kind: type[M], data: bytes) -> M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise MalformedRecord(f"{len(data)} bytes that are no {kind.DESCRIPTOR.name}") from None
    return message
