"""The front on a fake desk, called in process."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import ASGIApp

from onlinerlhf.gateway.http.app import create_app
from onlinerlhf.models.tokenizer import PromptTokenizer
from unit.gateway.http.fake_desk import KEY, SETTINGS, FakeDesk, make_byte_tokenizer


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    """One token a byte."""
    return make_byte_tokenizer(tmp_path_factory.mktemp("byte-model"))


@pytest.fixture
async def desk(byte_tokenizer: PromptTokenizer) -> FakeDesk:
    """Answers Hi."""
    return FakeDesk(tokenizer=byte_tokenizer)


@pytest.fixture
def app(desk: FakeDesk) -> ASGIApp:
    """The front."""
    return create_app(desk, SETTINGS, is_ready=lambda: True)


@pytest.fixture
async def http(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """With a good key."""
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client
