"""The TypeScript client: generated code as the protos generate it, and its own suite against a running gateway."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from clients.npm import PACKAGE, install, npm
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.runtime.keys import RunKeys

if TYPE_CHECKING:
    from integration.gateway.conftest import StartGateway

SUITE_SECONDS = 120.0
# The first test of a session may have to install the packages.
pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="session", autouse=True)
def _node_modules() -> None:
    install()


@pytest.fixture(scope="session")
def model_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose chat template takes conversations."""
    directory = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(model_dir, directory)
    path = directory / "tokenizer_config.json"
    turns = "{% for message in messages %}<user>{{ message['content'] }}<eos>{% endfor %}<bot>"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": turns}))
    return directory


def texts(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*.ts")}


def test_the_generated_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    npm("run", "generate", "--", "--out", str(tmp_path / "fresh"), seconds=60)
    fresh, committed = texts(tmp_path / "fresh"), texts(PACKAGE / "src" / "generated")
    assert sorted(fresh) == ["onlinerlhf/v1/gateway.ts", "onlinerlhf/v1/records.ts"]
    changed = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    assert changed == [], "run `make proto`"


def test_the_lock_file_names_no_place_to_download_from() -> None:
    assert '"resolved"' not in (PACKAGE / "package-lock.json").read_text()


async def test_its_suite_passes_against_a_running_gateway(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(notice_versions=("1",))
    store = KeyStore(client, keys)
    scopes = frozenset({Scope.GENERATE, Scope.FEEDBACK})
    _, api_key = await store.create("suite", KeyClass.PLAYGROUND, "acme", scopes)
    slow = Limits(requests_per_minute=60)
    _, limited = await store.create("limited", KeyClass.PLAYGROUND, "slow", scopes, slow)
    environment = {
        "ONLINERLHF_TARGET": gateway.target,
        "ONLINERLHF_API_KEY": api_key,
        "ONLINERLHF_LIMITED_API_KEY": limited,
        "ONLINERLHF_NOTICE": "1",
    }
    output = await asyncio.to_thread(npm, "test", seconds=SUITE_SECONDS, environment=environment)
    assert "fail 0" in output
    assert "skipped 0" in output
    assert api_key not in output
    assert limited not in output
