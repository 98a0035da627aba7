import asyncio
import hashlib
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from onlinerlhf.core.errors import NonFiniteWeights, NotFound, WeightsRefused
from onlinerlhf.core.weights import Line, entries_digest
from onlinerlhf.learner.lines import WeightLines
from onlinerlhf.learner.publisher import Publisher
from onlinerlhf.learner.tensors import unique_tensors
from onlinerlhf.learner.versions import VersionStore
from unit.learner.tiny import tiny_policy


def _store(path: Path, *, keep: int = 4) -> VersionStore:
    store = VersionStore(path / "versions", keep=keep)
    store.load()
    return store


def _first_weight(model: PreTrainedModel) -> torch.nn.Parameter:
    parameter: torch.nn.Parameter = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    return parameter


def test_a_version_has_the_names_and_bytes_of_a_transformers_checkpoint(tmp_path: Path) -> None:
    policy = tiny_policy()
    store = _store(tmp_path)
    manifest = store.save(unique_tensors(policy), 1)
    stored = store.get(1)
    tensors = load_file(stored.path)
    assert [entry.name for entry in manifest.tensors] == sorted(tensors)
    raw = stored.path.read_bytes()
    for entry in manifest.tensors:
        assert torch.equal(tensors[entry.name], policy.state_dict()[entry.name])
        start = stored.offsets[entry.name]
        assert hashlib.sha256(raw[start : start + entry.num_bytes]).digest() == entry.sha256
    assert manifest.digest == entries_digest(manifest.tensors)


def test_tied_weights_are_published_once_and_untied_ones_both(tmp_path: Path) -> None:
    tied = _store(tmp_path / "tied").save(unique_tensors(tiny_policy()), 1)
    untied = _store(tmp_path / "untied").save(unique_tensors(tiny_policy(tie_word_embeddings=False)), 1)
    assert "lm_head.weight" not in {entry.name for entry in tied.tensors}
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= {entry.name for entry in untied.tensors}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_and_the_old_version_stays(tmp_path: Path, bad: float) -> None:
    policy = tiny_policy()
    store = _store(tmp_path)
    store.save(unique_tensors(policy), 1)
    with torch.no_grad():
        _first_weight(policy)[3, 4] = bad
    with pytest.raises(NonFiniteWeights, match="up_proj"):
        store.save(unique_tensors(policy), 2)
    assert store.newest is not None and store.newest.version == 1
    assert [path.name for path in store.directory.iterdir()] == ["version-00000001.safetensors"]


def test_weights_that_overflow_the_published_dtype_are_refused(tmp_path: Path) -> None:
    policy = tiny_policy()
    with torch.no_grad():
        _first_weight(policy)[0, 0] = 1e6
    store = VersionStore(tmp_path / "versions", dtype=torch.float16)
    store.load()
    with pytest.raises(NonFiniteWeights, match="float16"):
        store.save(unique_tensors(policy), 1)


def test_a_published_dtype_is_what_the_file_holds(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "versions", dtype=torch.bfloat16)
    store.load()
    manifest = store.save(unique_tensors(tiny_policy()), 1)
    assert {entry.dtype for entry in manifest.tensors} == {"BF16"}
    assert load_file(store.get(1).path)["model.norm.weight"].dtype == torch.bfloat16


def test_a_number_never_stands_for_two_sets_of_weights(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.save(unique_tensors(tiny_policy(0)), 5)
    for taken in (5, 4):
        with pytest.raises(WeightsRefused, match="the newest is 5"):
            store.save(unique_tensors(tiny_policy(1)), taken)


def test_the_last_few_versions_are_kept(tmp_path: Path) -> None:
    store = _store(tmp_path, keep=2)
    for version in (1, 2, 5):
        store.save(unique_tensors(tiny_policy(version)), version)
    with pytest.raises(NotFound, match="version 1 is not on offer; the newest is 5"):
        store.get(1)
    assert sorted(path.name for path in store.directory.iterdir()) == [
        "version-00000002.safetensors",
        "version-00000005.safetensors",
    ]


def test_versions_are_found_again_after_a_restart_and_leftovers_are_cleared(tmp_path: Path) -> None:
    first = _store(tmp_path)
    manifest = first.save(unique_tensors(tiny_policy()), 3)
    (first.directory / "version-00000004.safetensors.tmp").write_bytes(b"half")
    (first.directory / "version-00000009.safetensors").write_bytes(b"not a version")
    second = _store(tmp_path)
    assert second.newest == manifest
    assert second.holds(unique_tensors(tiny_policy()), 3)
    assert not second.holds(unique_tensors(tiny_policy()), 9)
    assert not second.holds(unique_tensors(tiny_policy(seed=1)), 3)
    assert not (first.directory / "version-00000004.safetensors.tmp").exists()
    # The unreadable file's number is taken all the same.
    assert second.newest_number() == 9


def test_a_full_disk_leaves_the_old_version_and_no_half_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path)
    store.save(unique_tensors(tiny_policy()), 1)

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onlinerlhf.learner.versions.write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(unique_tensors(tiny_policy(1)), 2)
    assert store.newest is not None and store.newest.version == 1
    assert [path.name for path in store.directory.iterdir()] == ["version-00000001.safetensors"]


def test_a_version_that_cannot_be_read_back_does_not_take_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path)

    def fail(path: Path) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("onlinerlhf.learner.versions._read", fail)
        with pytest.raises(OSError, match="Too many open files"):
            store.save(unique_tensors(tiny_policy()), 1)
    assert store.newest is None
    store.save(unique_tensors(tiny_policy()), 1)
    assert load_file(store.get(1).path).keys() == {entry.name for entry in store.get(1).manifest.tensors}


async def test_a_delta_lists_what_differs_from_the_version_that_the_caller_holds(tmp_path: Path) -> None:
    publisher = Publisher(VersionStore(tmp_path / "versions", keep=2))
    await publisher.load()
    policy = tiny_policy()
    await publisher.publish(partial(unique_tensors, policy), 1)
    with torch.no_grad():
        _first_weight(policy).add_(1)
    full = await publisher.publish(partial(unique_tensors, policy), 2)
    delta = await publisher.newer_than(1, wait_seconds=0)
    assert (delta.version, delta.parent) == (2, 1)
    assert [entry.name for entry in delta.tensors] == ["model.layers.0.mlp.up_proj.weight"]
    assert delta.digest == full.digest
    assert await publisher.newer_than(1, wait_seconds=0, full=True) == full
    assert await publisher.newer_than(0, wait_seconds=0) == full
    # Version 1 is forgotten with the third: no delta against it any more.
    await publisher.publish(partial(unique_tensors, tiny_policy(1)), 3)
    assert not (await publisher.newer_than(1, wait_seconds=0)).is_delta


async def test_a_wait_without_a_newer_version_ends_with_the_newest_there_is(tmp_path: Path) -> None:
    publisher = Publisher(VersionStore(tmp_path / "versions"))
    await publisher.load()
    full = await publisher.publish(partial(unique_tensors, tiny_policy()), 4)
    assert await publisher.newer_than(4, wait_seconds=0.02) == full


async def test_a_drain_ends_the_waits(tmp_path: Path) -> None:
    publisher = Publisher(VersionStore(tmp_path / "versions"))
    await publisher.load()
    full = await publisher.publish(partial(unique_tensors, tiny_policy()), 4)
    stop = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(WeightLines({Line.POLICY: publisher}).close_at(stop), name="close")
        waiting = tasks.create_task(publisher.newer_than(4, wait_seconds=60), name="wait")
        await asyncio.sleep(0)
        stop.set()
    assert waiting.result() == full
