"""A pulled version is complete and verified, or refused without a trace."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from onlinerlhf.core.errors import BaseMissing, ChecksumMismatch, NonFiniteWeights, Unavailable, WeightsRefused
from onlinerlhf.rollout.staged_file import is_finite, read_shapes
from onlinerlhf.rollout.staging import ReceivedChunk, Staging
from unit.rollout.rollout_weights import CHUNK_BYTES, FakeLearner, Tensors, delta, full

SHAPES = {"a.weight": (4, 8), "b.weight": (16,), "c.weight": (3, 3)}


def tensors(seed: int) -> Tensors:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


async def no_sleep(seconds: float) -> None:
    del seconds


@pytest.fixture
def learner() -> FakeLearner:
    learner = FakeLearner()
    learner.versions[1] = tensors(1)
    return learner


@pytest.fixture
def staging(learner: FakeLearner, tmp_path: Path) -> Staging:
    staging = Staging(learner, tmp_path / "staging", expected_shapes=dict(SHAPES), sleep=no_sleep)
    staging.clear()
    return staging


def assert_same(path: Path, expected: Tensors) -> None:
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


async def test_a_full_version_is_staged_as_a_complete_safetensors_file(learner: FakeLearner, staging: Staging) -> None:
    staged = await staging.stage(full(1, learner.versions[1]))

    assert staged.version == 1
    assert staged.path.name == "1.safetensors"
    assert_same(staged.path, learner.versions[1])
    assert read_shapes(staged.path) == SHAPES


async def test_a_delta_is_completed_from_its_parent_and_fetches_only_what_changed(
    learner: FakeLearner, staging: Staging
) -> None:
    await staging.keep(await staging.stage(full(1, learner.versions[1])))
    learner.versions[2] = {**learner.versions[1], "b.weight": tensors(2)["b.weight"]}

    manifest = delta(2, learner.versions[2], parent=1, parent_tensors=learner.versions[1])
    staged = await staging.stage(manifest)

    assert [each.name for each in manifest.tensors] == ["b.weight"]
    assert learner.fetches[-1] == (2, ("b.weight",), 0)
    assert_same(staged.path, learner.versions[2])


async def test_a_delta_without_changes_fetches_nothing(learner: FakeLearner, staging: Staging) -> None:
    await staging.keep(await staging.stage(full(1, learner.versions[1])))
    learner.versions[2] = learner.versions[1]

    staged = await staging.stage(delta(2, learner.versions[2], parent=1, parent_tensors=learner.versions[1]))

    assert len(learner.fetches) == 1
    assert_same(staged.path, learner.versions[1])


async def test_keeping_a_version_removes_its_predecessor(learner: FakeLearner, staging: Staging) -> None:
    first = await staging.stage(full(1, learner.versions[1]))
    await staging.keep(first)
    learner.versions[2] = tensors(2)
    second = await staging.stage(full(2, learner.versions[2]))
    assert first.path.exists()

    await staging.keep(second)

    assert not first.path.exists()
    assert second.path.exists()


async def test_a_delta_whose_parent_is_not_held_is_refused(learner: FakeLearner, staging: Staging) -> None:
    learner.versions[3] = {**learner.versions[1], "b.weight": tensors(3)["b.weight"]}
    manifest = delta(3, learner.versions[3], parent=2, parent_tensors=learner.versions[1])

    with pytest.raises(BaseMissing, match="against 2; the version held here is none"):
        await staging.stage(manifest)

    await staging.keep(await staging.stage(full(1, learner.versions[1])))
    with pytest.raises(BaseMissing, match="the version held here is 1"):
        await staging.stage(manifest)


async def test_a_delta_that_does_not_add_up_to_its_digest_is_refused_before_anything_is_fetched(
    learner: FakeLearner, staging: Staging
) -> None:
    await staging.keep(await staging.stage(full(1, learner.versions[1])))
    learner.versions[2] = tensors(2)
    whole = delta(2, learner.versions[2], parent=1, parent_tensors=learner.versions[1])

    with pytest.raises(ChecksumMismatch, match="digest"):
        await staging.stage(replace(whole, tensors=whole.tensors[:1]))

    assert len(learner.fetches) == 1


async def test_a_corrupt_chunk_is_refused_and_leaves_nothing_behind(
    learner: FakeLearner, staging: Staging, tmp_path: Path
) -> None:
    def flip(chunk: ReceivedChunk) -> ReceivedChunk:
        if chunk.tensor == "b.weight":
            return replace(chunk, data=bytes([chunk.data[0] ^ 1]) + chunk.data[1:])
        return chunk

    learner.spoil = flip
    with pytest.raises(ChecksumMismatch, match=r"CRC-32 of a chunk of b\.weight"):
        await staging.stage(full(1, learner.versions[1]))

    assert list((tmp_path / "staging").iterdir()) == []


async def test_bytes_that_are_wrong_with_a_right_crc_fail_the_tensors_sha256(
    learner: FakeLearner, staging: Staging
) -> None:
    def flip(chunk: ReceivedChunk) -> ReceivedChunk:
        data = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
        return replace(chunk, data=data, crc32=zlib.crc32(data))

    learner.spoil = flip
    with pytest.raises(ChecksumMismatch, match=r"SHA-256 of a\.weight"):
        await staging.stage(full(1, learner.versions[1]))


async def test_a_truncated_chunk_is_refused(learner: FakeLearner, staging: Staging) -> None:
    def cut(chunk: ReceivedChunk) -> ReceivedChunk:
        data = chunk.data[:-4]
        return replace(chunk, data=data, crc32=zlib.crc32(data))

    learner.spoil = cut
    with pytest.raises(ChecksumMismatch, match="not the one that was due"):
        await staging.stage(full(1, learner.versions[1]))


async def test_a_stream_that_ends_early_and_then_gives_nothing_is_refused(
    learner: FakeLearner, staging: Staging
) -> None:
    learner.end_after_chunks = 0
    with pytest.raises(ChecksumMismatch, match="truncated"):
        await staging.stage(full(1, learner.versions[1]))


async def test_a_broken_stream_resumes_at_the_tensor_and_offset_where_it_broke(
    learner: FakeLearner, staging: Staging
) -> None:
    breaks = iter([2, 1])
    seen = 0

    def sometimes_break(chunk: ReceivedChunk) -> ReceivedChunk:
        nonlocal seen
        if seen == limit[0]:
            seen, limit[0] = 0, next(breaks, 1000)
            raise Unavailable("connection reset")
        seen += 1
        return chunk

    limit = [1]
    learner.spoil = sometimes_break
    staged = await staging.stage(full(1, learner.versions[1]))

    assert_same(staged.path, learner.versions[1])
    assert learner.fetches == [
        (1, ("a.weight", "b.weight", "c.weight"), 0),
        (1, ("a.weight", "b.weight", "c.weight"), CHUNK_BYTES),
        (1, ("c.weight",), 0),
    ]


async def test_a_stream_that_breaks_again_and_again_is_given_up_for_now(learner: FakeLearner, staging: Staging) -> None:
    def always_break(chunk: ReceivedChunk) -> ReceivedChunk:
        raise Unavailable("connection reset")

    learner.spoil = always_break
    with pytest.raises(Unavailable):
        await staging.stage(full(1, learner.versions[1]))

    assert len(learner.fetches) == 6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_weights_with_nan_or_infinity_are_refused(learner: FakeLearner, staging: Staging, bad: float) -> None:
    learner.versions[1]["c.weight"][1, 1] = bad

    with pytest.raises(NonFiniteWeights, match=r"c\.weight"):
        await staging.stage(full(1, learner.versions[1]))


async def test_another_models_weights_are_refused(learner: FakeLearner, staging: Staging) -> None:
    smaller = {name: value for name, value in learner.versions[1].items() if name != "b.weight"}
    with pytest.raises(WeightsRefused, match=r"lacks 1 tensors, b\.weight among them"):
        await staging.stage(full(1, smaller))

    reshaped = {**learner.versions[1], "b.weight": np.zeros((4, 4), np.float32)}
    with pytest.raises(WeightsRefused, match=r"b.weight of version 1 has shape \(4, 4\), expected \(16,\)"):
        await staging.stage(full(1, reshaped))


def test_finite_is_told_by_the_exponent_bits_of_each_format() -> None:
    assert is_finite(np.array([3.4e38, -1e-45, 0.0], "<f4").tobytes(), "F32")
    assert not is_finite(np.array([1.0, np.nan], "<f4").tobytes(), "F32")
    assert is_finite(np.array([65504.0], "<f2").tobytes(), "F16")
    assert not is_finite(np.array([np.inf], "<f2").tobytes(), "F16")
    assert is_finite(np.array([0x7F7F], "<u2").tobytes(), "BF16")
    assert not is_finite(np.array([0xFF80], "<u2").tobytes(), "BF16")
    assert is_finite(np.array([-1], "<i8").tobytes(), "I64")
