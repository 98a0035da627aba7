import pytest

from onlinerlhf_client import Client
from onlinerlhf_client.credentials import Credentials

KEY = "orl_play_0123456789abcdef"


def test_a_key_travels_as_a_bearer_token() -> None:
    assert Credentials(KEY).metadata == (("authorization", f"Bearer {KEY}"),)


def test_without_a_key_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLINERLHF_API_KEY", KEY)
    assert Credentials(None).metadata == (("authorization", f"Bearer {KEY}"),)


def test_without_any_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONLINERLHF_API_KEY", raising=False)
    assert Credentials(None).metadata == ()


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "line\r\n", "tab\t", "zoë", "nul\0", "\u202e"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="the API key is empty or holds") as refused:
        Client("127.0.0.1:9", api_key=f"{key}secret" if key else key)
    assert "secret" not in str(refused.value)


def test_nothing_shows_the_key() -> None:
    with Client("127.0.0.1:9", api_key=KEY) as client:
        assert KEY not in repr(client)
        assert KEY not in repr(Credentials(KEY))
