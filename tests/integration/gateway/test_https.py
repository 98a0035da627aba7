"""The HTTP front over TLS, with certificates that are renewed while it serves."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from authority import Authority, SecretMount
from integration.gateway.test_http_server import BODY, CHAT, QUICK, until
from onlinerlhf.gateway.http.server import HttpFront
from onlinerlhf.runtime.certificates import CertificateFiles
from onlinerlhf.runtime.tls import server_context
from unit.gateway.http.fake_desk import KEY, FakeDesk, make_byte_tokenizer


@pytest.fixture
def mount(tmp_path: Path) -> SecretMount:
    mount = SecretMount(tmp_path / "tls")
    mount.renew(Authority())
    return mount


@asynccontextmanager
async def https(mount: SecretMount, directory: Path, *, need_client_certificate: bool) -> AsyncIterator[HttpFront]:
    """A front on a free port."""
    files = CertificateFiles(role="http", cert=mount.cert, key=mount.key, ca=mount.ca)
    context = server_context(files, need_client_certificate=need_client_certificate)
    desk, stop = FakeDesk(tokenizer=make_byte_tokenizer(directory)), asyncio.Event()
    front = HttpFront(desk, QUICK, listen="127.0.0.1:0", is_ready=lambda: True, ssl_context=context)
    task = asyncio.create_task(front.run(stop), name="front")
    await until(lambda: front.address, "the front to listen")
    try:
        yield front
    finally:
        stop.set()
        await asyncio.wait((task,), timeout=10)


def _client(front: HttpFront, context: ssl.SSLContext) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=f"https://{front.address}", headers=headers, timeout=5, verify=context)


def _trusting(mount: SecretMount) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=mount.ca.read_text())


async def test_a_private_authority_is_enough_and_plaintext_or_a_stranger_gets_nothing(
    mount: SecretMount, tmp_path: Path
) -> None:
    async with https(mount, tmp_path, need_client_certificate=False) as front:
        async with _client(front, _trusting(mount)) as http:
            answer = await http.post(CHAT, json=BODY)
            assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "Hi")
        async with _client(front, ssl.create_default_context()) as http:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.post(CHAT, json=BODY)
        async with httpx.AsyncClient(base_url=f"http://{front.address}", timeout=5) as http:
            with pytest.raises(httpx.TransportError):
                await http.post(CHAT, json=BODY)


async def test_where_certificates_are_needed_only_those_of_the_authority_come_in(
    mount: SecretMount, tmp_path: Path
) -> None:
    async with https(mount, tmp_path, need_client_certificate=True) as front:
        with_own = _trusting(mount)
        with_own.load_cert_chain(mount.cert, mount.key)
        async with _client(front, with_own) as http:
            assert (await http.get("/healthz")).status_code == 200
        stranger = SecretMount(tmp_path / "stranger")
        stranger.renew(Authority("another"))
        with_other = _trusting(mount)
        with_other.load_cert_chain(stranger.cert, stranger.key)
        for context in (_trusting(mount), with_other):
            async with _client(front, context) as http:
                with pytest.raises(httpx.TransportError):
                    await http.get("/healthz")


async def test_renewed_files_count_for_new_connections_and_broken_ones_never(
    mount: SecretMount, tmp_path: Path
) -> None:
    async with https(mount, tmp_path, need_client_certificate=True) as front:
        before = _trusting(mount)
        before.load_cert_chain(mount.cert, mount.key)
        async with _client(front, before) as http:
            assert (await http.get("/healthz")).status_code == 200
            mount.write(cert=mount.cert.read_bytes(), key=b"half", ca=b"")
            await asyncio.sleep(1.2)
            async with _client(front, before) as another:
                assert (await another.get("/healthz")).status_code == 200
            # Of an authority of its own: who was let in before is not any more.
            mount.renew(Authority("new"))
            await asyncio.sleep(1.2)
            after = _trusting(mount)
            after.load_cert_chain(mount.cert, mount.key)
            async with _client(front, after) as another:
                assert (await another.get("/healthz")).status_code == 200
            trusting_both = _trusting(mount)
            trusting_both.load_cert_chain(*_old_pair(tmp_path))
            async with _client(front, trusting_both) as another:
                with pytest.raises(httpx.TransportError):
                    await another.get("/healthz")
            # The connection from before lives on.
            assert (await http.get("/healthz")).status_code == 200


def _old_pair(directory: Path) -> tuple[Path, Path]:
    """The first version of the mount, which this test leaves in its place."""
    return directory / "tls" / "..1" / "tls.crt", directory / "tls" / "..1" / "tls.key"
