"""Both clients offer the same, with the same arguments."""

import inspect

import pytest

from onlinerlhf_client import AsyncClient, AsyncTokenStream, Client, TokenStream
from onlinerlhf_client.feedback import AsyncFeedback, Feedback

PAIRS = [(Client, AsyncClient), (TokenStream, AsyncTokenStream), (Feedback, AsyncFeedback)]


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("plain", "asynchronous"), PAIRS)
def test_both_have_the_same_methods(plain: type, asynchronous: type) -> None:
    assert public(plain) == public(asynchronous)


@pytest.mark.parametrize(("plain", "asynchronous"), PAIRS)
def test_a_method_takes_the_same_arguments_in_both(plain: type, asynchronous: type) -> None:
    for name in {"__init__", *public(plain)}:
        method, twin = getattr(plain, name), getattr(asynchronous, name)
        if callable(method):
            parameters = [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
            twins = [(p.name, p.kind, p.default) for p in inspect.signature(twin).parameters.values()]
            defaults = {"sleep"}
            assert [p for p in parameters if p[0] not in defaults] == [p for p in twins if p[0] not in defaults], name


def test_an_option_that_there_is_not_is_an_error() -> None:
    with Client("127.0.0.1:9", api_key="key") as client, pytest.raises(TypeError, match="temperatur"):
        client.generate("a", user_id="ada", temperatur=1.0)  # type: ignore[call-arg]
