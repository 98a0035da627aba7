"""Waiting for files: bounded, and it says for what."""

from collections.abc import Callable
from pathlib import Path

import pytest

from onlinerlhf.runtime.await_path import await_paths, main


class FakeClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, *, on_sleep: Callable[[float], None] = lambda now: None) -> None:
        self.now = 100.0
        self._on_sleep = on_sleep

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._on_sleep(self.now - 100.0)


def test_files_that_are_there_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    clock, lines = FakeClock(), list[str]()

    found = await_paths(
        [tmp_path / "config.json"], timeout_seconds=60, report=lines.append, clock=clock, sleep=clock.sleep
    )

    assert found and clock.now == 100.0
    assert lines == [f"there after 0 s: {tmp_path}/config.json"]


def test_a_file_that_appears_ends_the_wait(tmp_path: Path) -> None:
    late = tmp_path / "sft" / "config.json"

    def write(waited_seconds: float) -> None:
        if waited_seconds >= 7:
            late.parent.mkdir(exist_ok=True)
            late.touch()

    clock, lines = FakeClock(on_sleep=write), list[str]()

    assert await_paths([late], timeout_seconds=60, report=lines.append, clock=clock, sleep=clock.sleep)
    assert lines == [f"waiting up to 60 s for {late}", f"there after 7 s: {late}"]


def test_the_wait_is_bounded_and_names_only_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    clock, lines = FakeClock(), list[str]()

    paths = [tmp_path / "there", tmp_path / "a", tmp_path / "b"]
    assert not await_paths(paths, timeout_seconds=40.5, report=lines.append, clock=clock, sleep=clock.sleep)

    assert clock.now == 140.5
    missing = f"{tmp_path}/a, {tmp_path}/b"
    assert lines == [
        f"waiting up to 40 s for {missing}",
        f"waiting up to 10 s for {missing}",
        f"still not there after 40 s: {missing}",
    ]


def test_the_command_ends_with_0_or_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--timeout-seconds", "1"]) == 0
    assert main([str(tmp_path / "no"), "--timeout-seconds", "0.01"]) == 1
    assert f"still not there after 0 s: {tmp_path}/no" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_a_usage_error(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["there", "--timeout-seconds", seconds])

    assert end.value.code == 2
    assert "--timeout-seconds" in capsys.readouterr().err
