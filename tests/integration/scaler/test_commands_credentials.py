"""A cloud's kubeconfig names a plugin that gives tokens for minutes: commands that take longer ask it again."""

import ssl
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from onlinerlhf.scaler.commands.cluster import Place, connected

# Gives "token-1", "token-2", … and an end.
PLUGIN = """
import json, pathlib, sys
counter = pathlib.Path(sys.argv[1])
number = int(counter.read_text() or 0) + 1 if counter.exists() else 1
counter.write_text(str(number))
status = {"token": f"token-{number}", "expirationTimestamp": sys.argv[2]}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, list[str]]]:
    """Its URL, and the credentials it was called with."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"gitVersion": "v1.33.1"})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


def kubeconfig(directory: Path, url: str, *, minutes: int) -> Path:
    """Of a user whose token lasts that long."""
    end = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="seconds").replace("+00:00", "Z")
    plugin: dict[str, Any] = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", PLUGIN, str(directory / "counter"), end],
        "interactiveMode": "Never",
    }
    path = directory / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cloud", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"exec": plugin}}],
        "contexts": [{"name": "it", "context": {"cluster": "cloud", "user": "me"}}],
        "current-context": "it",
    }
    path.write_text(yaml.safe_dump(config))
    return path


async def test_a_token_that_is_about_to_end_is_renewed(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, seen = server
    # The client counts a token as over five minutes before its end.
    async with connected(Place(namespace="x", kubeconfig=kubeconfig(tmp_path, url, minutes=4))) as cluster:
        await cluster.read("/version")
    assert seen == ["Bearer token-2", "Bearer token-3"]


async def test_one_that_lasts_is_kept(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, seen = server
    async with connected(Place(namespace="x", kubeconfig=kubeconfig(tmp_path, url, minutes=14))) as cluster:
        await cluster.read("/version")
    assert seen == ["Bearer token-1"] * 2


async def test_an_authority_without_key_identifiers_will_do(
    server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    default = ssl.create_default_context

    def strict(**arguments: Any) -> ssl.SSLContext:
        # As of Python 3.13.
        made.append(default(**arguments))
        made[-1].verify_flags |= ssl.VERIFY_X509_STRICT
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", strict)
    async with connected(Place(namespace="x", kubeconfig=kubeconfig(tmp_path, server[0], minutes=14))):
        [context] = made
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
