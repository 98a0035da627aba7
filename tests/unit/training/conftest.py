"""Tiny model directories and training files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from onlinerlhf.learner.bootstrap import tiny_models
from onlinerlhf.models.tokenizer import PromptTokenizer

Writer = Callable[..., Path]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `sft` and `reward`, all with random weights."""
    # On tensors this small a second thread only makes the first one wait.
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models")
    tiny_models(path, tie_word_embeddings=False)
    return path


@pytest.fixture(scope="session")
def tokenizer(models: Path) -> PromptTokenizer:
    """Of these models."""
    return PromptTokenizer.load(models / "sft")


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes a file of JSON lines: each argument is a row, or a line as it is."""

    def write(*rows: dict[str, Any] | str, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write
