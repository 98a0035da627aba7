import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import StringIO

import pytest

from onlinerlhf.gateway.pii import Finding, Kind, find
from onlinerlhf.gateway.pii.presidio_engine import EngineMissing, answers, main, presidio
from onlinerlhf.gateway.pii.process_scanner import ProcessScanner, parsed_findings
from onlinerlhf.gateway.pii.scanner import CombinedScanner, PatternScanner, ScreenFailed, build_scanner

NAME = Finding(kind=Kind.PERSON_NAME, start=0, end=3)

ENGINE = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    question = json.loads(line)
    text = question["text"]
    answer = {"id": question["id"], "findings": [["person_name", 0, 3]] if "Ann" in text else []}
    if text == "die": os._exit(3)
    if text == "hang": time.sleep(600)
    if text == "garbage": print("no JSON", flush=True); continue
    if text == "other id": answer["id"] = 0
    if text == "outside": answer["findings"] = [["email", 0, 9999]]
    if text == "unknown kind": answer["findings"] = [["shoe size", 0, 1]]
    if text == "no findings": del answer["findings"]
    if text == "long line": answer["padding"] = "x" * 2000000
    print(json.dumps(answer), flush=True)
"""


@asynccontextmanager
async def engine(
    program: str = ENGINE, *, timeout_seconds: float = 5.0, clock: Callable[[], float] | None = None
) -> AsyncIterator[ProcessScanner]:
    scanner = ProcessScanner(
        [sys.executable, "-c", program],
        timeout_seconds=timeout_seconds,
        start_timeout_seconds=10.0,
        first_pause_seconds=0.0 if clock is None else 1.0,
        clock=(lambda: 0.0) if clock is None else clock,
    )
    try:
        yield scanner
    finally:
        await scanner.close()


async def test_the_patterns_find_the_same_inline_and_in_a_thread() -> None:
    scanner = PatternScanner()
    short = "mail ann@example.com"
    assert await scanner.scan(short) == find(short)
    assert [found.start for found in await scanner.scan("word " * 2000 + short)] == [10_005]
    await scanner.close()


async def test_a_long_text_that_takes_too_long_is_an_error_and_never_clean() -> None:
    released = threading.Event()

    def slow(_: str) -> list[Finding]:
        released.wait(10)
        return []

    try:
        with pytest.raises(ScreenFailed, match=r"did not finish a text of 5000 characters in 0\.05 s"):
            await PatternScanner(timeout_seconds=0.05, search=slow).scan("x" * 5000)
    finally:
        released.set()


async def test_an_engine_answers_one_text_after_another() -> None:
    async with engine() as scanner:
        assert await scanner.scan("Ann is here") == [NAME]
        pid = scanner.pid
        assert await scanner.scan("nobody") == []
        assert await scanner.scan("Ann\ud800 with half a character, 中文 and\nlines") == [NAME]
        assert scanner.pid == pid


async def test_texts_at_once_wait_for_their_turns() -> None:
    async with engine() as scanner, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(scanner.scan("Ann" if number % 2 else "x"), name=f"scan {number}") for number in range(20)
        ]
    assert [len(task.result()) for task in tasks] == [0, 1] * 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("die", "the engine ended"),
        ("garbage", "not JSON"),
        ("other id", "another question"),
        ("outside", "within the text"),
        ("unknown kind", "within the text"),
        ("no findings", "not a list"),
        ("long line", "longer than"),
    ],
)
async def test_whatever_goes_wrong_is_an_error_and_the_next_text_gets_a_new_engine(text: str, message: str) -> None:
    async with engine() as scanner:
        await scanner.scan("first")
        pid = scanner.pid
        with pytest.raises(ScreenFailed, match=message):
            await scanner.scan(text)
        assert scanner.pid is None
        assert await scanner.scan("Ann") == [NAME]
        assert scanner.pid != pid


async def test_a_hanging_engine_is_killed_by_its_pid() -> None:
    async with engine(timeout_seconds=0.3) as scanner:
        await scanner.scan("first")
        pid = scanner.pid
        assert pid is not None
        with pytest.raises(ScreenFailed, match=r"did not answer in 0\.3 s"):
            await scanner.scan("hang")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_an_engine_killed_from_outside_is_an_error_or_replaced_and_never_clean() -> None:
    async with engine() as scanner:
        await scanner.scan("first")
        assert scanner.pid is not None
        os.kill(scanner.pid, signal.SIGKILL)
        try:
            assert await scanner.scan("Ann") == [NAME]
        except ScreenFailed:
            assert await scanner.scan("Ann") == [NAME]


async def test_a_cancelled_scan_leaves_no_answer_for_the_next() -> None:
    async with engine() as scanner:
        await scanner.scan("first")
        task = asyncio.create_task(scanner.scan("hang"), name="hanging scan")
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await scanner.scan("Ann") == [NAME]


async def test_an_engine_that_keeps_failing_is_left_alone_for_longer_and_longer() -> None:
    now = [100.0]
    async with engine("raise SystemExit(1)", clock=lambda: now[0]) as scanner:
        for pause in (1.0, 2.0, 4.0):
            with pytest.raises(ScreenFailed, match="the engine ended"):
                await scanner.scan("x")
            now[0] += pause - 0.01
            with pytest.raises(ScreenFailed, match="after a pause"):
                await scanner.scan("x")
            now[0] += 0.02


async def test_a_program_that_does_not_exist_is_an_error() -> None:
    scanner = ProcessScanner(["/nowhere/engine"])
    with pytest.raises(ScreenFailed, match="cannot be started"):
        await scanner.scan("x")


async def test_a_text_too_long_for_the_engine_is_refused_and_not_cut() -> None:
    scanner = ProcessScanner(["/nowhere/engine"], max_characters=10)
    with pytest.raises(ScreenFailed, match="takes 10 characters, not 11"):
        await scanner.scan("x" * 11)


async def test_the_reason_an_engine_gives_is_passed_on() -> None:
    program = 'print(\'{"error": "no model"}\', flush=True)'
    async with engine(program) as scanner:
        with pytest.raises(ScreenFailed, match="did not start: no model"):
            await scanner.scan("x")


async def test_errors_never_repeat_the_text() -> None:
    async with engine() as scanner:
        for text in ("garbage", "die", "outside"):
            with pytest.raises(ScreenFailed) as caught:
                await scanner.scan(text)
            assert caught.value.__cause__ is None


async def test_two_scanners_find_what_either_does_and_fail_if_either_does() -> None:
    async with engine() as scanner:
        both = CombinedScanner([PatternScanner(), scanner])
        assert [found.kind for found in await both.scan("Ann, ann@example.com")] == [Kind.PERSON_NAME, Kind.EMAIL]
        with pytest.raises(ScreenFailed):
            await both.scan("die")
        await both.close()
        assert scanner.pid is None


@pytest.mark.parametrize("value", [None, {}, [1], [["email", 0]], [["email", 1, 1]], [["email", -1, 2]], [[1, 0, 2]]])
def test_findings_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(ScreenFailed):
        parsed_findings(value, 10)


def test_the_engine_answers_a_line_with_a_line() -> None:
    lines = answers(iter(['{"id": 5, "text": "Ann"}\n']), lambda text: [("person_name", 0, len(text))])
    assert [json.loads(line) for line in lines] == [{"id": 5, "findings": [["person_name", 0, 3]]}]


def test_without_presidio_the_engine_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("onlinerlhf.gateway.pii.presidio_engine.find_spec", lambda _: None)
    monkeypatch.setattr("sys.stdin", StringIO(""))
    assert main([]) == 1
    output = capsys.readouterr()
    assert "Presidio is not installed here" in json.loads(output.out)["error"]
    assert len(output.err.splitlines()) == 1
    with pytest.raises(EngineMissing):
        presidio(model="m", language="en", entities=["PERSON"], score=0.5)


def test_an_unknown_entity_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--entities", "SHOE_SIZE"]) == 1
    assert "no entity is called SHOE_SIZE" in capsys.readouterr().err


async def test_without_a_command_there_are_only_the_patterns() -> None:
    assert isinstance(build_scanner(None, timeout_seconds=1.0), PatternScanner)
    both = build_scanner([sys.executable, "-c", ENGINE], timeout_seconds=5.0)
    try:
        assert [found.kind for found in await both.scan("Ann, ann@example.com")] == [Kind.PERSON_NAME, Kind.EMAIL]
    finally:
        await both.close()
