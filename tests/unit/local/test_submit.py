"""Files of prompts."""

from pathlib import Path

import pytest

from onlinerlhf.core.errors import InvalidInput, OnlineRLHFError
from onlinerlhf.local import submit
from onlinerlhf.local.submit import read_prompts
from onlinerlhf_client import Consent, Submission, SubmitResult
from onlinerlhf_client import InvalidInput as ClientInvalidInput

CONSENT = Consent(notice_version="1", shown_at_seconds=1_700_000_000.0)


def test_a_file_of_prompts_may_name_its_users(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b", "user": "bob"}\n')
    found = [(number, each.text, each.user_id) for number, each in read_prompts(path, user_id="ada", consent=CONSENT)]
    assert found == [(1, "a", "ada"), (3, "b", "bob")]


def test_a_line_separator_in_a_prompt_does_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes('{"prompt": "a\u2028b"}\r\n{"prompt": "c"}'.encode())
    assert [(number, each.text) for number, each in read_prompts(path, user_id="ada", consent=CONSENT)] == [
        (1, "a\u2028b"),
        (2, "c"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"secret words", "not JSON"),
        (b'{"text": "secret words"}', "not a JSON object with a field `prompt`"),
        (b'["secret words"]', "not a JSON object with a field `prompt`"),
        (b'{"prompt": ["secret words"]}', "`prompt` is not a string"),
        (b'{"prompt": "secret words", "user": null}', "`user` is not a string"),
        (b'{"prompt": "secret \xff words"}', "not UTF-8"),
    ],
)
def test_a_line_that_is_no_prompt_is_named_by_its_number_and_not_repeated(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n' + line + b"\n")
    with pytest.raises(InvalidInput) as refused:
        list(read_prompts(path, user_id="ada", consent=CONSENT))
    assert str(refused.value) == f"{path}, line 3: {reason}"


class RefusingClient:
    """Takes the place of the real client."""

    def __init__(self, target: str, *, api_key: str) -> None:
        self.target, self.api_key = target, api_key

    def __enter__(self) -> "RefusingClient":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit_many(self, submissions: list[Submission]) -> list[SubmitResult]:
        error = ClientInvalidInput("too long", reason="too_long")
        return [SubmitResult(submission=each, receipt=None, error=error) for each in submissions]


def test_a_refused_prompt_is_named_by_its_line_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('\n{"prompt": "a"}\n\n{"prompt": "b"}\n')
    monkeypatch.setattr(submit, "Client", RefusingClient)
    with pytest.raises(OnlineRLHFError, match="every prompt was refused"):
        submit.submit_file("127.0.0.1:9", "key", path, user_id="ada", consent=CONSENT)
    said = [line.split(" refused")[0] for line in capsys.readouterr().err.splitlines() if "refused" in line]
    assert said == ["line 2", "line 4"]
