"""Whatever is wrong with a request: the right status, OpenAI's shape, and not a word of what was sent."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message

from onlinerlhf.core import errors
from onlinerlhf.gateway.http.errors import HTTP_STATUSES, http_status
from onlinerlhf.runtime import statuses
from unit.gateway.http.fake_desk import FakeDesk

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
CANARY = "zanzibar"
MESSAGES = [{"role": "user", "content": CANARY}]


def check_shape(response: httpx.Response) -> dict[str, Any]:
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["type"] and error["code"]
    assert CANARY not in response.text
    return dict(error)


CHAT_REFUSALS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "max_tokens is 0": ({"max_tokens": 0}, "invalid", "max_tokens"),
    "max_tokens is negative": ({"max_tokens": -1}, "invalid", "max_tokens"),
    "max_tokens is huge": ({"max_tokens": 10**9}, "bad_max_tokens", None),
    "max_tokens has 4,000 digits": ({"max_tokens": 10**4_000}, "invalid", "max_tokens"),
    "max_tokens is text": ({"max_tokens": CANARY}, "invalid", "max_tokens"),
    "max_completion_tokens is 0": ({"max_completion_tokens": 0}, "invalid", "max_completion_tokens"),
    "n is 0": ({"n": 0}, "invalid", "n"),
    "n is more than the gateway gives": ({"n": 9}, "bad_num_answers", None),
    "a number is a string": ({"temperature": "1"}, "invalid", "temperature"),
    "a truth is a number": ({"stream": 1}, "invalid", "stream"),
    "temperature is too high": ({"temperature": 2.5}, "invalid", "temperature"),
    "top_p is 0": ({"top_p": 0}, "invalid", "top_p"),
    "five stops": ({"stop": ["a", "b", "c", "d", "e"]}, "invalid", "stop"),
    "an empty stop": ({"stop": ""}, "invalid", "stop"),
    "top_logprobs without logprobs": ({"top_logprobs": 1}, "invalid", "top_logprobs"),
    "21 top_logprobs": ({"logprobs": True, "top_logprobs": 21}, "invalid", "top_logprobs"),
    "stream_options without stream": ({"stream_options": {}}, "invalid", "stream_options"),
    "tools": ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    "functions": ({"functions": [{"name": CANARY}]}, "unsupported_parameter", "functions"),
    "JSON as answer": ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
    "audio": ({"audio": {"voice": CANARY}}, "unsupported_parameter", "audio"),
    "logit_bias": ({"logit_bias": {"1": 5}}, "unsupported_parameter", "logit_bias"),
    "a penalty": ({"presence_penalty": 0.5}, "unsupported_parameter", "presence_penalty"),
    "an unknown field": ({"best_friend": CANARY}, "unknown_parameter", "best_friend"),
    "a text for a field's name": ({f"my secret is {CANARY}": 1}, "unknown_parameter", None),
    "another model": ({"model": CANARY}, "model_not_found", None),
    "no messages": ({"messages": []}, "invalid", "messages"),
    "messages that are text": ({"messages": CANARY}, "invalid", "messages"),
    "an unknown role": ({"messages": [{"role": CANARY, "content": "a"}]}, "invalid", "messages"),
    "a tool's message": ({"messages": [{"role": "tool", "content": "a"}]}, "invalid", "messages"),
    "a picture": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "invalid", "messages"),
    "a named speaker": ({"messages": [MESSAGES[0] | {"name": CANARY}]}, "unsupported_parameter", "name"),
    "the last turn is not the user's": ({"messages": [MESSAGES[0] | {"role": "assistant"}]}, "bad_messages", None),
    "a blank prompt": ({"messages": [{"role": "user", "content": " \u200b"}]}, "empty", None),
    "a NUL": ({"messages": [{"role": "user", "content": f"{CANARY}\x00"}]}, "control_character", None),
    "a lone surrogate": ({"messages": [{"role": "user", "content": f"{CANARY}\ud800"}]}, "not_utf8", None),
    "a surrogate in a stop": ({"stop": [f"{CANARY}\ud800"]}, "invalid", "stop"),
    "a surrogate in a user": ({"user": "\ud800"}, "invalid", "user"),
    "a surrogate in a field's name": ({f"{CANARY}\ud800": 1}, "unknown_parameter", None),
    "a surrogate in a role": ({"messages": [{"role": "\ud800", "content": "a"}]}, "invalid", "messages"),
    "a user that is no name": ({"user": "\u00e9"}, "invalid", "user"),
    "a use case of its own": ({"use_case": CANARY}, "invalid", "use_case"),
    "consent without a time": ({"consent": {"notice_version": CANARY}}, "invalid", "consent"),
    "consent at no time": ({"consent": {"notice_version": "1", "shown_at": 1e300}}, "invalid", "consent"),
}


@pytest.mark.parametrize("name", CHAT_REFUSALS)
async def test_a_chat_request_that_cannot_be_accepted(http: httpx.AsyncClient, desk: FakeDesk, name: str) -> None:
    fields, code, param = CHAT_REFUSALS[name]
    content = json.dumps({"model": "policy", "messages": MESSAGES, **fields})
    response = await http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == (404 if code == "model_not_found" else 400)
    error = check_shape(response)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert desk.questions == []


COMPLETION_REFUSALS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no prompt at all": ({"prompt": None}, "invalid", "prompt"),
    "an empty list": ({"prompt": []}, "invalid", "prompt"),
    "an empty list of tokens": ({"prompt": [[]]}, "invalid", "prompt"),
    "texts and tokens mixed": ({"prompt": [CANARY, 1]}, "invalid", "prompt"),
    "a negative token": ({"prompt": [-1]}, "invalid", "prompt"),
    "a token beyond the vocabulary": ({"prompt": [100_000]}, "bad_token_id", None),
    "too many prompts": ({"prompt": [CANARY] * 65}, "invalid", "prompt"),
    "too many choices": ({"prompt": [CANARY] * 33, "n": 4}, "invalid", "n"),
    "no tokens without an echo": ({"max_tokens": 0}, "invalid", "max_tokens"),
    "best_of": ({"best_of": 2}, "unsupported_parameter", "best_of"),
    "a suffix": ({"suffix": CANARY}, "unsupported_parameter", "suffix"),
    "21 logprobs": ({"logprobs": 21}, "invalid", "logprobs"),
}


@pytest.mark.parametrize("name", COMPLETION_REFUSALS)
async def test_a_completion_request_that_cannot_be_accepted(http: httpx.AsyncClient, name: str) -> None:
    fields, code, param = COMPLETION_REFUSALS[name]
    response = await http.post(COMPLETIONS, json={"model": "policy", "prompt": CANARY, **fields})
    assert response.status_code == 400
    error = check_shape(response)
    assert (error["code"], error["param"]) == (code, param)


BODIES = {
    "nothing": b"",
    "not JSON": CANARY.encode(),
    "not an object": b'["zanzibar"]',
    "cut": b'{"model": "zanzibar',
    "not UTF-8": b'{"model": "zanzibar\xff"}',
    "nested without end": b"[" * 60_000,
    "a number without end": b'{"n": ' + b"1" * 6_000 + b"}",
    "not a number": b'{"model": "policy", "temperature": NaN, "messages": [{"role": "user", "content": "a"}]}',
    "infinite": b'{"model": "policy", "temperature": 1e999, "messages": [{"role": "user", "content": "a"}]}',
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_no_request(http: httpx.AsyncClient, name: str) -> None:
    response = await http.post(CHAT, content=BODIES[name], headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    check_shape(response)


async def test_a_body_of_another_type_is_not_read(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, data={"model": CANARY})
    assert response.status_code == 400
    check_shape(response)


async def test_a_body_with_thousands_of_offences_is_refused_at_the_first(http: httpx.AsyncClient) -> None:
    offences = [{"role": "user", "content": number} for number in range(1_000)]
    response = await http.post(CHAT, json={"model": "policy", "messages": offences})
    assert response.status_code == 400
    response = await http.post(CHAT, json={f"{CANARY}{number}": 1 for number in range(3_000)})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unknown_parameter")


@pytest.mark.parametrize("header", ["x" * 129, "tab\t", ""])
async def test_an_idempotency_key_that_is_no_name(http: httpx.AsyncClient, header: str) -> None:
    response = await http.post(
        CHAT, json={"model": "policy", "messages": MESSAGES}, headers={"Idempotency-Key": header}
    )
    assert response.status_code == 400
    assert check_shape(response)["code"] == "bad_idempotency_key"


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer zanzibar", "Basic a-good-key", "a-good-key"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/policy", CHAT, COMPLETIONS, "/v1/feedback"])
async def test_without_a_good_key_nothing_is_served(app: ASGIApp, path: str, authorization: str | None) -> None:
    bodies: dict[str, Any] = {
        CHAT: {"model": "policy", "messages": MESSAGES},
        COMPLETIONS: {"model": "policy", "prompt": CANARY},
        "/v1/feedback": {"kind": "thumb", "sample_id": "sample-1", "up": True},
    }
    headers = {} if authorization is None else {"Authorization": authorization}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        method = "POST" if path in bodies else "GET"
        response = await client.request(method, path, json=bodies.get(path), headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="onlinerlhf"'
    error = check_shape(response)
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


REFUSALS: list[tuple[errors.OnlineRLHFError, int, str, str, str | None]] = [
    (errors.InvalidInput("x", reason="too_large"), 413, "invalid_request_error", "too_large", None),
    (errors.PermissionDenied("x"), 403, "permission_error", "permission_denied", None),
    (errors.IdempotencyConflict("x"), 409, "conflict_error", "idempotency_conflict", None),
    (errors.LimitReached("x", retry_after_seconds=1.2), 429, "rate_limit_error", "rate_limit_exceeded", "2 1200"),
    (errors.LimitReached("x"), 429, "rate_limit_error", "rate_limit_exceeded", "1 1000"),
    (errors.Unavailable("x"), 503, "server_error", "unavailable", "1 1000"),
    (errors.WaitTimeout("x"), 503, "server_error", "wait_timeout", "1 1000"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code", "retry"), REFUSALS)
async def test_the_desks_refusals_have_their_status(
    http: httpx.AsyncClient,
    desk: FakeDesk,
    error: errors.OnlineRLHFError,
    status: int,
    kind: str,
    code: str,
    retry: str | None,
) -> None:
    desk.refuses_with = error
    response = await http.post(CHAT, json={"model": "policy", "messages": MESSAGES, "stream": True})
    assert response.status_code == status
    found = check_shape(response)
    assert (found["type"], found["code"]) == (kind, code)
    headers = [response.headers[name] for name in ("retry-after", "retry-after-ms") if name in response.headers]
    assert " ".join(headers) == (retry or "")


def test_every_error_of_ours_has_a_status() -> None:
    assert set(HTTP_STATUSES) == set(statuses.CODES.values())
    assert http_status(errors.CheckpointError("x"))[0] == 500


@pytest.mark.parametrize("error", [ValueError(CANARY), errors.CheckpointError(CANARY)], ids=["theirs", "ours"])
async def test_a_fault_of_ours_gives_an_id_and_nothing_else(
    http: httpx.AsyncClient, desk: FakeDesk, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    desk.refuses_with = error
    http._transport = httpx.ASGITransport(http._transport.app, raise_app_exceptions=False)  # type: ignore[attr-defined]
    with caplog.at_level(logging.ERROR):
        response = await http.post(CHAT, json={"model": "policy", "messages": MESSAGES})
    assert response.status_code == 500
    check_shape(response)
    error_id = response.json()["error"]["message"].removeprefix("internal error ")
    logged = [record.__dict__["error_id"] for record in caplog.records if "error_id" in record.__dict__]
    assert logged == [error_id]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2", 404), ("GET", CHAT, 405), ("POST", "/v1/models/", 405)]
)
async def test_paths_and_methods_that_are_not_there(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await http.request(method, path)
    assert response.status_code == status
    check_shape(response)


async def test_a_body_that_is_announced_too_large_is_not_waited_for(app: ASGIApp) -> None:
    response = await call(app, [(b"content-length", b"65537")], [])
    assert response[0]["status"] == 413


async def test_a_body_without_length_is_cut_at_the_bound(app: ASGIApp) -> None:
    chunk: Message = {"type": "http.request", "body": b" " * 40_000, "more_body": True}
    response = await call(app, [], [chunk, chunk, chunk])
    assert response[0]["status"] == 413


async def test_a_body_that_does_not_come_is_not_waited_for_for_long(app: ASGIApp) -> None:
    response = await call(app, [], [{"type": "http.request", "body": b"{", "more_body": True}])
    assert response[0]["status"] == 408


async def call(app: ASGIApp, headers: list[tuple[bytes, bytes]], messages: list[Message]) -> list[Message]:
    """One request as the server hands it over; after `messages` nothing more comes."""
    sent: list[Message] = []
    waiting = iter(messages)

    async def receive() -> Message:
        for message in waiting:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("gateway", 80),
        "client": ("client", 1),
        "root_path": "",
    }
    await app(scope, receive, send)
    assert CANARY.encode() not in b"".join(message.get("body", b"") for message in sent)
    return sent
