import io
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from onlinerlhf.core.errors import CheckpointError, StartupError
from onlinerlhf.learner.checkpoint import CheckpointStore, LearnedSample, Progress
from onlinerlhf.learner.files import sync_directory
from onlinerlhf.learner.ppo import PPO
from unit.learner.tiny import random_rollouts, tiny_ppo


def _progress(step: int) -> Progress:
    sample = LearnedSample(entry_id=f"{step}-0", sample_id=f"prompt-{step}.0", version=step + 1)
    return Progress(step=step, version=step + 1, samples=(sample,), counters={"dropped_stale": step})


def _train(ppo: PPO, store: CheckpointStore, steps: int) -> None:
    for _ in range(steps):
        ppo.step(random_rollouts(4, seed=ppo.num_steps))
        store.save(ppo, _progress(ppo.num_steps))


def test_a_learner_resumed_from_a_checkpoint_goes_on_exactly_as_the_one_that_never_stopped(tmp_path: Path) -> None:
    store, original = CheckpointStore(tmp_path), tiny_ppo()
    _train(original, store, 2)
    resumed = tiny_ppo()
    assert store.load(resumed) == _progress(2)
    assert resumed.num_steps == 2
    rollouts = random_rollouts(6, seed=9)
    assert original.step(rollouts) == resumed.step(rollouts)
    expected = original.policy.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.policy.state_dict().items())


def test_untied_models_resume_too(tmp_path: Path) -> None:
    store, original = CheckpointStore(tmp_path), tiny_ppo(tie_word_embeddings=False)
    _train(original, store, 1)
    resumed = tiny_ppo(tie_word_embeddings=False)
    store.load(resumed)
    assert torch.equal(resumed.policy.lm_head.weight, original.policy.lm_head.weight)


def test_a_checkpoint_before_the_first_step_has_no_optimizer_state(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(tiny_ppo(), Progress(step=0, version=1))
    ppo = tiny_ppo()
    assert store.load(ppo) == Progress(step=0, version=1)
    ppo.step(random_rollouts(4))


def test_an_empty_directory_has_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").load(tiny_ppo()) is None


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    _train(tiny_ppo(), CheckpointStore(tmp_path), 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "no checksums", "bad checksums"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    _train(tiny_ppo(), store, 2)
    policy = tmp_path / "step-00000002" / "policy.safetensors"
    raw = bytearray(policy.read_bytes())
    if damage == "truncated":
        policy.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[-7] ^= 1
        policy.write_bytes(raw)
    elif damage == "missing":
        policy.unlink()
    elif damage == "no checksums":
        (tmp_path / "step-00000002" / "checksums.json").unlink()
    else:
        (tmp_path / "step-00000002" / "checksums.json").write_bytes(b"[7]")
    with caplog.at_level(logging.ERROR):
        assert store.load(tiny_ppo()) == _progress(1)
    assert "broken checkpoint set aside" in caplog.text
    assert [vars(record)["max_acked_samples_lacking"] for record in caplog.records] == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002.broken"]
    # Step 2 can be reached and saved again.
    ppo = tiny_ppo()
    store.load(ppo)
    _train(ppo, store, 1)
    assert store.load(tiny_ppo()) == _progress(2)


def test_a_full_disk_raises_and_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ppo = CheckpointStore(tmp_path), tiny_ppo()
    _train(ppo, store, 1)
    ppo.step(random_rollouts(4))

    def full(tensors: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onlinerlhf.learner.checkpoints.write_tensors", full)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*step-00000002: No space left on device"):
        store.save(ppo, _progress(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert store.load(tiny_ppo()) == _progress(1)


def test_what_a_crash_left_half_written_is_ignored(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    _train(tiny_ppo(), store, 1)
    (tmp_path / "step-00000002.tmp").mkdir()
    (tmp_path / "step-00000002.tmp" / "policy.safetensors").write_bytes(b"half")
    assert store.load(tiny_ppo()) == _progress(1)


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    _train(tiny_ppo(tie_word_embeddings=False), store, 1)
    with pytest.raises(StartupError, match=r"step-00000001 does not fit the configured models: .*lm_head"):
        store.load(tiny_ppo())


@pytest.mark.parametrize("where", ["checksums.json", "value.safetensors", "."])
def test_a_checkpoint_that_cannot_be_read_is_no_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    store = CheckpointStore(tmp_path)
    _train(tiny_ppo(), store, 2)
    opened, listed = io.open, os.listdir

    def open_(path: Any, *arguments: Any, **settings: Any) -> Any:
        if Path(path).name == where:
            raise OSError(5, "Input/output error")
        return opened(path, *arguments, **settings)

    def list_(path: Any) -> Any:
        if Path(path) == tmp_path / where:
            raise OSError(13, "Permission denied")
        return listed(path)

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", open_)
        patched.setattr(os, "listdir", list_)
        with pytest.raises(CheckpointError, match=r"cannot read the checkpoints in .*: .*(Input/output|Permission)"):
            store.load(tiny_ppo())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    assert store.load(tiny_ppo()) == _progress(2)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_checkpoint_whose_last_sync_failed_can_be_saved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    store, ppo = CheckpointStore(tmp_path), tiny_ppo()

    def fail_after_the_rename(path: Path) -> None:
        if path == tmp_path:
            raise OSError(5, "Input/output error")
        sync_directory(path)

    with monkeypatch.context() as patched:
        patched.setattr("onlinerlhf.learner.checkpoints.sync_directory", fail_after_the_rename)
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*step-00000000: Input/output error"):
                store.save(ppo, _progress(0))
    if damaged:
        (tmp_path / "step-00000000" / "state.json").write_text("{}")
    store.save(ppo, _progress(0))
    assert store.load(tiny_ppo()) == _progress(0)
