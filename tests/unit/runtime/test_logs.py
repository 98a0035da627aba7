"""One JSON object a line, and no request text in it."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from onlinerlhf.core.errors import NotFound
from onlinerlhf.runtime import logs

SECRET = "what is my secret?"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_has_the_agreed_keys_and_the_extras(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("gateway", level="INFO")
    logging.getLogger("onlinerlhf.x").info("listening", extra={"address": "127.0.0.1:1"})
    logging.getLogger("onlinerlhf.x").debug("unheard")
    [line] = lines(capsys)
    assert str(line.pop("ts")).startswith("20")
    assert line == {
        "level": "INFO",
        "room": "gateway",
        "logger": "onlinerlhf.x",
        "event": "listening",
        "address": "127.0.0.1:1",
    }


def test_an_exception_is_logged_by_type_and_stack_and_its_text_only_where_that_is_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup("gateway", level="INFO")
    log = logging.getLogger("x")
    try:
        try:
            b"\xff".decode() if sys.argv else None
        except UnicodeDecodeError as error:
            raise KeyError(SECRET) from error
    except KeyError:
        log.exception("call failed")
    try:
        raise NotFound("no sample s1")
    except NotFound:
        log.exception("call failed")
    hidden, shown = (str(line["exception"]) for line in lines(capsys))
    assert SECRET not in hidden and "0xff" not in hidden
    assert "KeyError" in hidden and "UnicodeDecodeError" in hidden and "caused by" in hidden
    assert "test_logs.py" in hidden
    assert shown.endswith("NotFound: no sample s1")


def test_setting_up_twice_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("gateway", level="INFO")
    logs.setup("gateway", level="INFO")
    logging.getLogger("x").info("once")
    assert len(lines(capsys)) == 1
