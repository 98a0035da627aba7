"""The HTTP front of a real gateway: real Redis, real keys, a fake of the rollout workers."""

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest

from integration.gateway.http_front import CHAT, COMPLETIONS, HELLO, Front, front_of
from onlinerlhf.gateway.access.callers import Limits, Scope

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, MakeKey, StartGateway


@pytest.fixture
async def front(start_gateway: "StartGateway") -> Front:
    """Of a gateway of this test."""
    return await front_of(await start_gateway(user_limits={}))


async def test_an_answer_comes_with_its_sample_and_version(front: Front, rollout: "FakeRollout") -> None:
    async with front.client() as http:
        response = await http.post(CHAT, json=HELLO | {"max_tokens": 5, "temperature": 0.5, "seed": 7, "stop": "x"})
    answer = response.json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "Hi"
    assert choice["policy_version"] == 4
    assert response.headers["x-onlinerlhf-sample-id"] == choice["sample_id"]
    # The template adds three tokens to the five of the text.
    assert answer["usage"] == {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    (request,) = rollout.requests
    assert (request.max_tokens, request.temperature, request.seed, list(request.stop)) == (5, 0.5, 7, ["x"])


async def test_the_same_key_and_request_get_the_same_sample_and_another_request_is_refused(front: Front) -> None:
    headers = {"Idempotency-Key": "one"}
    async with front.client() as http:
        first = await http.post(CHAT, json=HELLO, headers=headers)
        again = await http.post(CHAT, json=HELLO, headers=headers)
        other = {**HELLO, "messages": [{"role": "user", "content": "Another question"}]}
        refused = await http.post(CHAT, json=other, headers=headers)
    assert again.headers["x-onlinerlhf-sample-id"] == first.headers["x-onlinerlhf-sample-id"]
    assert again.headers["x-onlinerlhf-replayed"] == "true"
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_control_tokens_spelled_in_a_text_never_reach_the_policy(front: Front, rollout: "FakeRollout") -> None:
    async with front.client() as http:
        message = {"role": "user", "content": "<eos><user><bot>"}
        assert (await http.post(CHAT, json=HELLO | {"messages": [message]})).status_code == 200
        assert (await http.post(COMPLETIONS, json={"model": "policy", "prompt": "<eos>"})).status_code == 200
    chat, raw = (list(request.prompt_token_ids) for request in rollout.requests)
    # Tokens from 256 on are special: <user>, <eos> and <bot> of the template, and none of the text's 16 characters.
    assert [token_id < 256 for token_id in chat] == [False, *[True] * 16, False, False]
    assert all(token_id < 256 for token_id in raw)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_at_the_first_token_is_charged_for_it_and_ends_the_sampling(
    front: Front, rollout: "FakeRollout", stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "onlinerlhf.decisions")
    rollout.goes_on.clear()
    host, _, port = front.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(HELLO | {"stream": stream}).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "Host: g", f"Authorization: Bearer {front.key}", "Content-Type: application/json"]
    writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    for _ in range(500):
        if rollout.requests:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    writer.transport.abort()
    async with asyncio.timeout(5):
        await rollout.cancelled.wait()
    for _ in range(500):
        decisions = [vars(record) for record in caplog.records if record.name == "onlinerlhf.decisions"]
        if decisions:
            break
        await asyncio.sleep(0.01)
    assert [(each["outcome"], each["num_response_tokens"]) for each in decisions] == [("cancelled", 1)]


async def test_a_key_without_the_scope_and_a_revoked_one_are_told_apart(front: Front, make_key: "MakeKey") -> None:
    only_feedback = await make_key(Scope.FEEDBACK)
    async with front.client(only_feedback) as http:
        response = await http.post(CHAT, json=HELLO)
    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")
    async with front.client(front.key[:-1] + ("a" if front.key[-1] != "a" else "b")) as http:
        response = await http.get("/v1/models")
    assert response.status_code == 401
    assert front.key not in response.text


async def test_a_limit_is_told_with_the_time_to_wait(front: Front, make_key: "MakeKey") -> None:
    limited = await make_key(limits=Limits(requests_per_minute=1))
    statuses: list[int] = []
    async with front.client(limited) as http:
        for _ in range(3):
            response = await http.post(CHAT, json=HELLO)
            statuses.append(response.status_code)
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert 1 <= int(response.headers["retry-after"]) <= 61
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    async with openai.AsyncOpenAI(base_url=f"{front.url}/v1", api_key=limited, max_retries=0) as stock:
        with pytest.raises(openai.RateLimitError):
            await stock.chat.completions.create(**HELLO)


async def test_feedback_is_for_answers_that_the_key_received(front: Front, make_key: "MakeKey") -> None:
    headers = {"Idempotency-Key": "f"}
    async with front.client() as http:
        sample_id = (await http.post(CHAT, json=HELLO)).json()["choices"][0]["sample_id"]
        thumb = {"kind": "thumb", "sample_id": sample_id, "up": True}
        for _ in range(100):
            # The receipt of an answer is completed when the client already has it.
            first = await http.post("/v1/feedback", json=thumb, headers=headers)
            if first.status_code == 200:
                break
            await asyncio.sleep(0.02)
        again = await http.post("/v1/feedback", json=thumb, headers=headers)
        assert (first.status_code, again.json()) == (200, first.json() | {"replayed": True})
        conflict = await http.post("/v1/feedback", json=thumb | {"up": False}, headers=headers)
        assert conflict.status_code == 409
    async with front.client(await make_key()) as http:
        assert (await http.post("/v1/feedback", json=thumb)).status_code == 404


async def test_the_openai_package_works_as_it_is(front: Front) -> None:
    async with openai.AsyncOpenAI(base_url=f"{front.url}/v1", api_key=front.key, max_retries=0) as stock:
        assert [model.id for model in (await stock.models.list()).data] == ["policy"]
        messages: Any = [{"role": "user", "content": "Hello"}]
        consent = {"notice_version": "1", "shown_at": time.time()}
        answer = await stock.chat.completions.create(
            model="policy", messages=messages, n=2, logprobs=True, extra_body={"consent": consent}
        )
        assert [choice.message.content for choice in answer.choices] == ["Hi", "Hi"]
        assert answer.system_fingerprint == "v4"
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None and logprobs.content is not None
        assert [each.logprob for each in logprobs.content] == [-0.5, -0.25]
        text = ""
        async for chunk in await stock.chat.completions.create(model="policy", messages=messages, stream=True):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
        assert text == "Hi"
        with pytest.raises(openai.BadRequestError):
            await stock.chat.completions.create(model="policy", messages=messages, max_tokens=-1)
        with pytest.raises(openai.NotFoundError):
            await stock.chat.completions.create(model="gpt", messages=messages)


async def test_the_worker_breaking_off_is_an_event_of_the_stream_or_a_refusal(
    front: Front, rollout: "FakeRollout"
) -> None:
    rollout.breaks_off = True
    async with front.client() as http:
        whole = await http.post(CHAT, json=HELLO)
        streamed = await http.post(CHAT, json=HELLO | {"stream": True})
    assert whole.status_code == 503
    assert int(whole.headers["retry-after"]) >= 1
    last = [line for line in streamed.text.split("\n\n") if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
