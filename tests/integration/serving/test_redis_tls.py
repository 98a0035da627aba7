"""Redis behind TLS, as managed ones are: `rediss://` with a private authority."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from authority import Authority, SecretMount
from onlinerlhf.core.errors import Unavailable
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from redis_servers import RedisServer, redis_binaries


@asynccontextmanager
async def tls_in_front_of(port: int, mount: SecretMount) -> AsyncIterator[int]:
    """Takes TLS, asks for a certificate, and passes plaintext on: not every redis-server is built with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(mount.cert, mount.key)
    context.load_verify_locations(mount.ca)
    context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, back_writer), name="to redis")
            group.create_task(pump(back_reader, writer), name="from redis")

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _ping(url: str) -> bytes:
    client = redis.connect(RunConfig(redis_url=SecretStr(url)))
    patience = redis.Patience(Health("test"))
    try:
        return await patience("a ping", lambda: redis.command(client, "ECHO", "hello"), give_up_seconds=0.2)
    finally:
        await client.aclose()


@pytest.mark.parametrize("binary", redis_binaries()[:1])
async def test_commands_go_over_tls_and_who_is_not_trusted_is_away(binary: str, tmp_path: Path) -> None:
    mount, stranger = SecretMount(tmp_path / "tls"), SecretMount(tmp_path / "stranger")
    mount.renew(Authority())
    stranger.renew(Authority("another"))
    server = RedisServer(tmp_path, binary=binary)
    server.start()
    try:
        async with tls_in_front_of(server.port, mount) as port:
            own = f"ssl_certfile={mount.cert}&ssl_keyfile={mount.key}"
            assert await _ping(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={mount.ca}&{own}") == b"hello"
            for url in (
                f"rediss://127.0.0.1:{port}/0?{own}",
                f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={stranger.ca}&{own}",
                f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={mount.ca}",
                f"redis://127.0.0.1:{port}/0",
            ):
                with pytest.raises(Unavailable, match="a ping: Redis"):
                    await _ping(url)
    finally:
        server.kill()
