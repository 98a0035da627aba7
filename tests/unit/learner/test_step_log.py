import json
import resource
from pathlib import Path

import pytest

from onlinerlhf.learner.step_log import StepLog


def test_steps_beyond_the_checkpoint_and_a_line_cut_short_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "run" / "steps.jsonl"
    log = StepLog(path)
    log.truncate(0)
    for step in (1, 2, 3):
        log.append({"step": step, "score_mean": step / 2})
    with path.open("a") as stream:
        stream.write('{"step": 4, "sco')
    log.truncate(2)
    log.append({"step": 3, "score_mean": 9.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "score_mean": 0.5},
        {"step": 2, "score_mean": 1.0},
        {"step": 3, "score_mean": 9.0},
    ]


def test_a_line_for_which_there_is_no_room_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    log = StepLog(path)
    log.append({"step": 1})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="only 5 of 12 bytes"):
            log.append({"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    log.append({"step": 2})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
