"""The command line: quick, teaching, one line an error."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from onlinerlhf.cli import cli
from onlinerlhf.local.demo_settings import DEMO
from onlinerlhf.local.endpoints import Endpoints, ProcessEntry
from onlinerlhf.local.snapshot import LearnerView, Snapshot
from onlinerlhf.local.up import ready_line
from onlinerlhf_client import OnlineRLHFError as ClientError

COMMANDS = [
    "bootstrap",
    "data",
    "demo",
    "doctor",
    "k8s",
    "keys",
    "quota",
    "reproduce",
    "scale",
    "status",
    "submit",
    "train",
    "up",
]
HEAVY = [
    "torch",
    "vllm",
    "transformers",
    "matplotlib",
    "grpc",
    "rich",
    "redis",
    "pydantic",
    "fastapi",
    "uvicorn",
    "pyarrow",
]


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


def subcommands() -> list[str]:
    groups = [(name, group) for name, group in cli.commands.items() if isinstance(group, click.Group)]
    return sorted(f"{name} {below}" for name, group in groups for below in group.commands)


@pytest.mark.parametrize("command", [*COMMANDS, *subcommands()])
def test_every_help_shows_an_example(command: str) -> None:
    text = CliRunner().invoke(cli, [*command.split(), "--help"]).output
    assert f"\n    onlinerlhf {command}" in text


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_without_a_platform_the_error_is_one_line_that_says_what_to_do(command: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [command, "--home", str(tmp_path)])
    assert done.exit_code == 1
    where = f"no platform is up under {tmp_path / 'runs'} (--home picks another directory)"
    assert done.output == f"Error: {where}; `onlinerlhf up` starts one\n"


def test_up_without_models_says_how_to_make_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["up", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: policy directory ")
    assert "`onlinerlhf bootstrap` makes small models" in done.output


def test_submit_wants_a_text_or_a_file() -> None:
    done = CliRunner().invoke(cli, ["submit"])
    assert (done.exit_code, "give either a TEXT or --file" in done.output) == (2, True)


@pytest.mark.parametrize("source", [["a prompt"], ["--file", __file__]])
def test_what_cannot_be_kept_from_training_is_not_sent(source: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["submit", *source, "--no-consent", "--home", str(tmp_path)])
    assert (done.exit_code, "--no-consent" in done.output.splitlines()[-1]) == (2, True)


def test_a_file_of_prompts_cannot_be_answered(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["submit", "--file", __file__, "--answer", "--home", str(tmp_path)])
    assert (done.exit_code, "--file goes with neither" in done.output) == (2, True)


def test_examples_of_submit_ask_different_things() -> None:
    text = CliRunner().invoke(cli, ["submit", "--help"]).output
    prompts = re.findall(r'onlinerlhf submit "(.*?)"', text)
    assert len(prompts) == len(set(prompts)) == 3


def test_demo_help_names_everything_the_verdict_demands() -> None:
    text = " ".join(CliRunner().invoke(cli, ["demo", "--help"]).output.split())
    assert f"below {DEMO.min_win_rate:.0%}" in text
    assert f"at least {DEMO.min_prompts} " in text
    assert f"fewer than {DEMO.min_versions} new versions" in text


def test_a_client_error_in_the_demo_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(home: Path, *, run: str, fast: bool) -> None:
        raise ClientError(f"{run} was refused, fast {fast}, in {home.name}")

    monkeypatch.setattr("onlinerlhf.local.demo.demo", refused)
    done = CliRunner().invoke(cli, ["demo", "--home", str(tmp_path / "h")])
    assert (done.exit_code, done.output) == (1, "Error: demo was refused, fast False, in h\n")


def test_the_config_of_up_may_come_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[trainer]\nbatch_size = 64\n")
    done = CliRunner().invoke(cli, ["up", "--home", str(tmp_path)], env={"ONLINERLHF_CONFIG": str(path)})
    assert (done.exit_code, "my.toml: [trainer] is not one of" in done.output) == (1, True)


def test_the_ready_line_ends_with_what_a_step_takes() -> None:
    gateway = ProcessEntry(name="gateway", address="127.0.0.1:9", pid=7, restarts=0, state="ready")
    found = Endpoints(
        run_id="r", run_dir="/runs/r", redis_url="", supervisor_pid=1, http="127.0.0.1:8", processes=(gateway,)
    )
    line = ready_line(found, Snapshot(learner=LearnerView(batch_size=32)))
    assert line.startswith("ready: gateway on 127.0.0.1:9, OpenAI-compatible on http://127.0.0.1:8/v1, ")
    assert "keys in /runs/r/credentials.json, logs in /runs/r/logs; Ctrl-C drains" in line
    assert line.endswith("a learner step takes 32 responses (learner.batch_size)")


def test_quota_alone_looks_where_the_environment_says(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["quota"], env={"ONLINERLHF_HOME": str(tmp_path / "elsewhere")})
    assert done.exit_code == 1 and "elsewhere" in done.output
