"""The command line: quick, teaching, one line an error."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from onlinerlhf.cli import cli
from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.local.submit import read_prompts

COMMANDS = ["bootstrap", "demo", "doctor", "status", "submit", "up"]
HEAVY = ["torch", "vllm", "transformers", "matplotlib", "grpc", "rich", "redis"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from onlinerlhf.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_there_is_a_command_for_every_job() -> None:
    assert sorted(cli.commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(command: str) -> None:
    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert f"\n    onlinerlhf {command}" in text


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_without_a_platform_the_error_is_one_line_that_says_what_to_do(command: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [command, "--home", str(tmp_path)])
    assert done.exit_code == 1
    expected = f"Error: no platform was started under {tmp_path / 'runs'}; `onlinerlhf up` starts one\n"
    assert done.output == expected


def test_up_without_models_says_how_to_make_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["up", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: policy directory ")
    assert "`onlinerlhf bootstrap` makes small models" in done.output


def test_submit_wants_a_text_or_a_file() -> None:
    done = CliRunner().invoke(cli, ["submit"])
    assert (done.exit_code, "give either a TEXT or --file" in done.output) == (2, True)


def test_a_file_of_prompts_may_name_its_users(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b", "user": "bob"}\n')
    found = [(each.text, each.user_id) for each in read_prompts(path, user_id="ada")]
    assert found == [("a", "ada"), ("b", "bob")]


@pytest.mark.parametrize("line", ["secret words", '{"text": "secret words"}', '["secret words"]'])
def test_a_line_that_is_no_prompt_is_named_by_its_number_and_not_repeated(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(InvalidInput, match="line 2") as refused:
        list(read_prompts(path, user_id="ada"))
    assert "secret" not in str(refused.value)
