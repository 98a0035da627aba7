"""Model directories shared by this package's tests."""

from pathlib import Path

import pytest

from onlinerlhf.learner.bootstrap import tiny_models


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("untied")
    tiny_models(path, tie_word_embeddings=False, seed=0)
    return path


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tied")
    tiny_models(path, tie_word_embeddings=True, seed=0)
    return path
