"""TLS between rooms, and certificates that are renewed under servers and channels that go on."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from authority import Authority, SecretMount
from integration.serving.support import Running, running
from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime.channels import ClientTls, open_channel
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.serving import run_service
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc

REQUEST = gateway_pb2.SubmitPromptRequest()
HANG = gateway_pb2.GenerateRequest(user_id="hang")
SEEN_SECONDS = 1.2
"""After which changed files have been looked at."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def mount(tmp_path: Path, authority: Authority) -> SecretMount:
    """Of the server."""
    mount = SecretMount(tmp_path / "server")
    mount.renew(authority)
    return mount


@pytest.fixture
def own(tmp_path: Path, authority: Authority) -> SecretMount:
    """Of the caller."""
    mount = SecretMount(tmp_path / "client")
    mount.renew(authority)
    return mount


@pytest.fixture
async def service(mount: SecretMount) -> AsyncIterator[Running]:
    async with running(tls_cert=mount.cert, tls_key=mount.key, tls_ca=mount.ca) as service:
        yield service


def _as(mount: SecretMount) -> ClientTls:
    return ClientTls(cert=mount.cert, key=mount.key, ca=mount.ca)


async def _code(address: str, tls: ClientTls | None) -> str:
    """How a call over a fresh channel ends."""
    async with open_channel(address, tls=tls, retry=False) as channel:
        try:
            await gateway_pb2_grpc.GatewayServiceStub(channel).SubmitPrompt(REQUEST, timeout=1.0, wait_for_ready=False)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def _text(call: Any) -> str:
    """The next part of an answer."""
    return str((await call.read()).token.text)


async def _shown(address: str, own: SecretMount) -> bytes:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context(cadata=own.ca.read_text())
    context.load_cert_chain(own.cert, own.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(shown).encode()


async def test_with_an_authority_only_its_own_may_call_and_it_is_verified_too(
    service: Running, own: SecretMount, tmp_path: Path
) -> None:
    stranger = SecretMount(tmp_path / "stranger")
    cert, key = Authority("another").issue()
    stranger.write(cert=cert, key=key, ca=own.ca.read_bytes())
    misled = SecretMount(tmp_path / "misled")
    misled.write(cert=own.cert.read_bytes(), key=own.key.read_bytes(), ca=Authority("another").pem)
    elsewhere = ClientTls(cert=own.cert, key=own.key, ca=own.ca, server_name="elsewhere")
    named = ClientTls(cert=own.cert, key=own.key, ca=own.ca, server_name="localhost")
    ends = {
        "own": await _code(service.address, _as(own)),
        "by another name of it": await _code(service.address, named),
        "plaintext": await _code(service.address, None),
        "without a certificate": await _code(service.address, ClientTls(ca=own.ca)),
        "a stranger": await _code(service.address, _as(stranger)),
        "who trusts others": await _code(service.address, _as(misled)),
        "who means another": await _code(service.address, elsewhere),
        "by gRPC's authorities": await _code(service.address, ClientTls()),
    }
    assert ends == dict.fromkeys(ends, "UNAVAILABLE") | {"own": "OK", "by another name of it": "OK"}


async def test_without_required_certificates_trust_in_the_server_is_enough(mount: SecretMount) -> None:
    async with running(
        tls_cert=mount.cert, tls_key=mount.key, tls_ca=mount.ca, require_client_certificate=False
    ) as service:
        assert await _code(service.address, ClientTls(ca=mount.ca)) == "OK"
        assert await _code(service.address, None) == "UNAVAILABLE"


async def test_a_renewed_certificate_is_shown_to_new_connections_and_cuts_no_old_one(
    service: Running, mount: SecretMount, own: SecretMount, authority: Authority
) -> None:
    first = mount.cert.read_bytes()
    assert await _shown(service.address, own) == first
    async with open_channel(service.address, tls=_as(own)) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        call = stub.Generate(HANG, timeout=10)
        assert await _text(call) == "one"
        renewed = mount.renew(authority)
        await asyncio.sleep(SEEN_SECONDS)
        assert await _shown(service.address, own) == renewed != first
        service.servicer.release.set()
        assert await _text(call) == "two"
        await stub.SubmitPrompt(REQUEST, timeout=5)


async def test_a_pair_that_does_not_fit_is_never_shown(
    service: Running, mount: SecretMount, own: SecretMount, authority: Authority
) -> None:
    first = mount.cert.read_bytes()
    cert, key = authority.issue()
    for bad_cert, bad_key in ((cert, mount.key.read_bytes()), (cert[:80], key), (cert, b"")):
        mount.write(cert=bad_cert, key=bad_key, ca=authority.pem)
        await asyncio.sleep(SEEN_SECONDS)
        assert await _shown(service.address, own) == first
        assert await _code(service.address, _as(own)) == "OK"
    mount.write(cert=cert, key=key, ca=authority.pem)
    await asyncio.sleep(SEEN_SECONDS)
    assert await _shown(service.address, own) == cert


async def test_a_channel_outlives_the_change_of_the_authority_and_its_calls_do_too(
    service: Running, mount: SecretMount, own: SecretMount, authority: Authority
) -> None:
    """As an operator does it: trust both, renew everybody, trust the new one alone."""
    new = Authority("new")
    async with open_channel(service.address, tls=_as(own)) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        call = stub.Generate(HANG, timeout=20)
        assert await _text(call) == "one"
        for each in (mount, own):
            each.write(cert=each.cert.read_bytes(), key=each.key.read_bytes(), ca=authority.pem + new.pem)
        await asyncio.sleep(SEEN_SECONDS)
        for each in (mount, own):
            cert, key = new.issue()
            each.write(cert=cert, key=key, ca=authority.pem + new.pem)
        await asyncio.sleep(SEEN_SECONDS)
        await stub.SubmitPrompt(REQUEST, timeout=5)
        for each in (mount, own):
            each.write(cert=each.cert.read_bytes(), key=each.key.read_bytes(), ca=new.pem)
        await asyncio.sleep(SEEN_SECONDS)
        await stub.SubmitPrompt(REQUEST, timeout=5)
        assert not call.done()
        service.servicer.release.set()
        assert await _text(call) == "two"
        assert await call.read() is grpc.aio.EOF
        # A connection that is new on both sides, to one that trusts the new authority alone.
        service.task.cancel()
        await asyncio.wait([service.task])
        async with running(address=service.address, tls_cert=mount.cert, tls_key=mount.key, tls_ca=mount.ca):
            await stub.SubmitPrompt(REQUEST, timeout=5)


async def test_retired_channels_close_after_their_last_call(
    service: Running, own: SecretMount, authority: Authority
) -> None:
    async with open_channel(service.address, tls=_as(own)) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        call = stub.Generate(HANG, timeout=20)
        await call.read()
        for _ in range(2):
            own.renew(authority)
            await asyncio.sleep(SEEN_SECONDS)
            await stub.SubmitPrompt(REQUEST, timeout=5)
        assert _num_retired() == 1
        service.servicer.release.set()
        await call.read()
        await call.read()
        await _until(lambda: _num_retired() == 0)
        service.servicer.release.clear()
        hanging = stub.Generate(HANG, timeout=20)
        await hanging.read()
        own.renew(authority)
        await asyncio.sleep(SEEN_SECONDS)
        await stub.SubmitPrompt(REQUEST, timeout=5)
        assert _num_retired() == 1 and not hanging.done()
    assert _num_retired() == 0
    await _until(hanging.done)


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


def _num_retired() -> int:
    return sum(task.get_name() == "retired channel" for task in asyncio.all_tasks())


async def test_a_server_that_cannot_use_its_files_does_not_start(mount: SecretMount, authority: Authority) -> None:
    mount.write(cert=mount.cert.read_bytes(), key=authority.issue()[1], ca=authority.pem)
    config = ServiceConfig(tls_cert=mount.cert, tls_key=mount.key)
    with pytest.raises(StartupError, match=r"tls\.key is not the key of the first certificate in .*tls\.crt$"):
        await run_service("test", config, health=Health("test"), register=lambda server: [])
    with pytest.raises(StartupError, match=r"tls\.key is not the key"):
        open_channel("127.0.0.1:1", tls=_as(mount))
