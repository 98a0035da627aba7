"""The published client against a gateway that speaks TLS under a private authority."""

import asyncio
from pathlib import Path

import pytest

from authority import Authority, SecretMount
from integration.serving.support import running
from onlinerlhf_client import AsyncClient, Client, Timeouts, Tls, Unavailable

KEY = "sk-test"
SOON = Timeouts(total_seconds=1.0)


@pytest.fixture
def mount(tmp_path: Path) -> SecretMount:
    mount = SecretMount(tmp_path / "tls")
    mount.renew(Authority(), "gateway.test")
    return mount


def _submit(target: str, tls: bool | Tls) -> str:
    with Client(target, api_key=KEY, tls=tls, timeouts=SOON) as client:
        return client.submit("Hello", user_id="u", consent=None).sample_id


async def _submit_async(target: str, tls: bool | Tls) -> str:
    async with AsyncClient(target, api_key=KEY, tls=tls, timeouts=SOON) as client:
        return (await client.submit("Hello", user_id="u", consent=None)).sample_id


async def test_the_authority_is_all_it_needs_and_a_name_where_the_target_has_another(mount: SecretMount) -> None:
    async with running(tls_cert=mount.cert, tls_key=mount.key) as service:
        port = service.address.rpartition(":")[2]
        for target, tls in (
            (service.address, Tls(ca=mount.ca)),
            (f"localhost:{port}", Tls(ca=str(mount.ca), server_name="gateway.test")),
        ):
            assert await _submit_async(target, tls) == "s1"
            assert await asyncio.to_thread(_submit, target, tls) == "s1"
        refused: tuple[tuple[str, bool | Tls], ...] = (
            (service.address, False),
            (service.address, True),
            (f"localhost:{port}", Tls(ca=mount.ca)),
        )
        for target, wrong in refused:
            with pytest.raises(Unavailable):
                await _submit_async(target, wrong)


async def test_a_gateway_that_asks_for_certificates_takes_those_of_its_authority(mount: SecretMount) -> None:
    async with running(tls_cert=mount.cert, tls_key=mount.key, tls_ca=mount.ca) as service:
        own = Tls(ca=mount.ca, cert=mount.cert, key=mount.key)
        assert await _submit_async(service.address, own) == "s1"
        assert await asyncio.to_thread(_submit, service.address, own) == "s1"
        with pytest.raises(Unavailable):
            await _submit_async(service.address, Tls(ca=mount.ca))


def test_a_certificate_without_its_key_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"^cert and key go together: one of them is not set$"):
        Tls(cert="tls.crt")
