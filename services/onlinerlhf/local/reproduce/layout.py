"""Where a seed's files lie, and what has been measured of it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.local.reproduce.settings import Settings

BASE, PROMPTED, SFT, PPO, PTX = "base", "prompted", "sft", "ppo", "ppo-ptx"
STAGES = (BASE, PROMPTED, SFT, PPO, PTX)
MODELS = "models"
JOBS = (MODELS, PPO, PTX)
"""In this order: both trainings begin from the models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDirectory:
    """HOME/reproduce/seed-N."""

    root: Path
    settings: Settings
    seed: int

    @property
    def path(self) -> Path:
        """Of everything of this seed."""
        return self.root / f"seed-{self.seed}"

    @property
    def models(self) -> Path:
        """base, sft, reward: transformers directories."""
        return self.path / "models"

    def run(self, job: str) -> Path:
        """The output of `onlinerlhf train ppo`."""
        return self.path / job

    def data(self, name: str) -> Path:
        """A JSON Lines file that a training reads."""
        return self.path / f"{name}.jsonl"

    def claim(self) -> None:
        """Refuse a directory that other settings made. ConfigError."""
        self.path.mkdir(parents=True, exist_ok=True)
        found = self._read("settings.json")
        if found is not None and found != {"digest": self.settings.digest}:
            raise ConfigError(f"{self.path} was made with other settings; remove it, or choose another --home")
        self._write("settings.json", {"digest": self.settings.digest})

    def result(self, job: str) -> dict[str, Any] | None:
        """What a job measured; None: it is not done."""
        return self._read(f"measured-{job}.json")

    def finish(self, job: str, result: Mapping[str, Any]) -> None:
        """The job is done."""
        self._write(f"measured-{job}.json", result)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        staging = self.path / f".{name}"
        staging.write_text(json.dumps(value) + "\n", encoding="utf-8")
        os.replace(staging, self.path / name)
