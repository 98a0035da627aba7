"""A Dockerfile, taken apart: its stages, and what each inherits. Just what its tests ask for."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PATH: Final = ROOT / "deploy" / "docker" / "Dockerfile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM, up to the next."""

    name: str
    base: str
    """A stage, or an image."""
    steps: tuple[tuple[str, str], ...]
    """(instruction, what follows it)"""

    def all(self, instruction: str) -> list[str]:
        """What follows each of these instructions."""
        return [rest for word, rest in self.steps if word == instruction]


def stages(path: Path = PATH) -> dict[str, Stage]:
    """By name, in order."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found: dict[str, Stage] = {}
    for block in re.split(r"^(?=FROM )", joined, flags=re.MULTILINE):
        if not block.startswith("FROM "):
            continue
        first, *rest = [line.strip() for line in block.splitlines() if line.strip()]
        _, base, _, name = re.sub(r"--platform=\S+\s+", "", first).split()
        steps = tuple((word, text) for word, _, text in (line.partition(" ") for line in rest))
        found[name] = Stage(name=name, base=base, steps=steps)
    return found


def lineage(name: str, every: dict[str, Stage]) -> list[Stage]:
    """The stage and all that it is made from, itself last."""
    found: list[Stage] = []
    while name in every:
        found.insert(0, every[name])
        name = every[name].base
    return found


def last(instruction: str, chain: list[Stage]) -> str:
    """The one that counts."""
    said = [rest for stage in chain for rest in stage.all(instruction)]
    return said[-1] if said else ""


def entry_point(room: str) -> list[str]:
    """What an image runs; fails for a shell's form, in which no signal reaches the process."""
    chain = lineage(room, stages())
    parsed: list[str] = json.loads(last("ENTRYPOINT", chain))
    return parsed
