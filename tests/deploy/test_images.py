"""What the images must be, read off their Dockerfile: nothing here is built."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.dockerfile import PATH, entry_point, last, lineage, stages

ROOMS = ("gateway", "scaler", "rollout", "reward", "learner")
BUILD_TOOLS = re.compile(r"\b(gcc|g\+\+|clang|make|cmake|build-essential|git|curl|wget|pip|python3-venv|\w+-dev)\b")


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run([hadolint, str(PATH)], capture_output=True, text=True, timeout=30, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_every_room_has_an_image_and_each_image_has_the_same_lineage() -> None:
    every = stages()
    for room in ROOMS:
        assert "runtime" in [stage.name for stage in lineage(room, every)]


def test_the_base_is_an_argument_and_no_base_is_a_latest() -> None:
    text = PATH.read_text()
    [default] = re.findall(r"^ARG BASE=(\S+)", text, re.MULTILINE)
    assert ":" in default and not default.endswith(":latest")
    outside = {stage.base for stage in stages().values()} - set(stages())
    assert outside == {"${BASE}"}


@pytest.mark.parametrize("room", ROOMS)
def test_an_image_runs_its_room_directly_and_as_nobody(room: str) -> None:
    chain = lineage(room, stages())
    assert entry_point(room) == ["/opt/venv/bin/python", "-m", f"onlinerlhf.{room}"]
    assert importlib.util.find_spec(f"onlinerlhf.{room}.__main__") is not None
    assert last("USER", chain) == "10001:10001"
    assert last("STOPSIGNAL", chain) in ("", "SIGTERM")


@pytest.mark.parametrize("room", ROOMS)
def test_no_build_tool_is_installed_in_an_image_and_no_cache_is_left(room: str) -> None:
    for stage in lineage(room, stages()):
        for command in stage.all("RUN"):
            if stage.name == "rollout":
                # Triton compiles its driver module at run time, on GPUs alone.
                command = re.sub(r"\bgpu\) apt-get install [^;]*;;", "", command)
            assert not BUILD_TOOLS.search(command), f"{stage.name}: {command}"
            assert "apt-get install" not in command or "rm -rf /var/lib/apt/lists" in command


@pytest.mark.parametrize("room", ROOMS)
def test_an_image_takes_from_build_stages_their_environment_alone(room: str) -> None:
    for stage in lineage(room, stages()):
        for source, path in (
            re.findall(r"--from=(\S+)\s+(\S+)", text)[0] for text in stage.all("COPY") if "--from" in text
        ):
            assert source.endswith("-build") and path in ("/opt/venv", "/opt/torch")


@pytest.mark.parametrize("room", ["gateway", "scaler"])
def test_the_slim_images_have_no_torch(room: str) -> None:
    assert "torch" not in [stage.name for stage in lineage(room, stages())]
    commands = " ".join(stages()[f"{room}-build"].all("RUN"))
    extras = re.findall(r"--extras (\S+)", commands)
    assert extras and not {"reward", "learner", "rollout", "gpu", "cpu"} & set(extras[0].split(","))


def test_no_secret_of_the_build_stays_in_an_image() -> None:
    for room in ROOMS:
        for stage in lineage(room, stages()):
            assert not any(
                re.search(r"PIP_|_TOKEN\b|PASSWORD|SECRET", text) for text in stage.all("ARG") + stage.all("ENV")
            )
