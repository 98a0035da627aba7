"""POST /v1/chat/completions."""

import json
from typing import Any

import httpx
import pytest

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.gateway.admission.consent import ConsentClaim
from unit.gateway.http.fake_desk import FakeDesk

URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "policy", "messages": HELLO, **fields}


def chunks(response: httpx.Response) -> list[Any]:
    """The JSON of all events but the last."""
    *events, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(event) for event in events]


async def test_an_answer_has_openais_shape_and_says_which_sample_and_version_it_is(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, json=body())
    assert response.status_code == 200
    answer = response.json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "policy"
    assert answer["system_fingerprint"] == "v4"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "sample_id": "sample-1-0",
            "policy_version": 4,
        }
    ]
    # <user>Hello<eos><bot>
    assert answer["usage"] == {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    assert response.headers["x-onlinerlhf-sample-id"] == "sample-1-0"
    assert response.headers["x-onlinerlhf-policy-version"] == "4"
    assert "x-onlinerlhf-replayed" not in response.headers


async def test_defaults_are_the_gateways(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    await http.post(URL, json=body(max_tokens=None, temperature=None, stop=None, n=None, seed=None, user=None))
    question = desk.questions[0]
    assert question.user_id == "default"
    assert question.turns == (("user", b"Hello"),)
    assert question.spec.max_tokens == 16
    assert (question.spec.temperature, question.spec.top_p) == (1.0, 1.0)
    assert (question.spec.seed, question.spec.stop, question.spec.num_top_logprobs) == (None, (), 0)
    assert (question.num_answers, question.idempotency_key, question.consent) == (1, "", None)


async def test_every_option_reaches_the_desk(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    options = body(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
            {"role": "assistant", "content": "Hi", "refusal": None, "tool_calls": None, "annotations": []},
            {"role": "user", "content": "Again"},
        ],
        max_tokens=3,
        max_completion_tokens=5,
        temperature=0,
        top_p=0.5,
        seed=-1,
        stop=["a", "b"],
        n=2,
        logprobs=True,
        top_logprobs=2,
        user="ada",
        consent={"notice_version": "1", "shown_at": 1_700_000_000},
        use_case="rewrite",
        metadata={"any": "thing"},
        store=False,
        presence_penalty=0,
        response_format={"type": "text"},
        tools=[],
    )
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = await http.post(URL, json=options, headers={"Idempotency-Key": "again", "traceparent": parent})
    assert response.status_code == 200
    assert response.headers["x-onlinerlhf-replayed"] == "true"
    assert response.headers["x-onlinerlhf-sample-id"] == "sample-1-0,sample-1-1"
    question = desk.questions[0]
    assert question.turns == (
        ("system", b"Be brief."),
        ("user", b"Hello"),
        ("assistant", b"Hi"),
        ("user", b"Again"),
    )
    assert (question.spec.max_tokens, question.spec.temperature, question.spec.top_p) == (5, 0.0, 0.5)
    assert (question.spec.seed, question.spec.stop) == (2**63 - 1, ("a", "b"))
    assert (question.num_answers, question.spec.num_top_logprobs) == (2, 2)
    assert (question.user_id, question.idempotency_key, question.use_case) == ("ada", "again", "rewrite")
    assert question.consent == ConsentClaim(notice_version="1", shown_at_seconds=1_700_000_000.0)
    assert question.traceparent == parent


async def test_logprobs_list_every_sampled_token(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, json=body(logprobs=True, top_logprobs=2))
    logprobs = response.json()["choices"][0]["logprobs"]
    assert [(each["token"], each["logprob"], each["bytes"]) for each in logprobs["content"]] == [
        ("H", -0.5, [72]),
        ("i", -0.25, [105]),
    ]
    assert logprobs["content"][0]["top_logprobs"] == [
        {"token": "H", "logprob": -0.5, "bytes": [72]},
        {"token": "I", "logprob": -1.5, "bytes": [73]},
    ]


async def test_a_part_of_a_character_has_no_bytes_of_its_own(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    first, second = desk.tokenizer.encode_text("é")
    desk.answer = [(first, ""), (second, "é")]
    response = await http.post(URL, json=body(logprobs=True))
    choice = response.json()["choices"][0]
    assert choice["message"]["content"] == "é"
    assert [each["bytes"] for each in choice["logprobs"]["content"]] == [None, None]


async def test_an_answer_cut_at_max_tokens_says_so(http: httpx.AsyncClient) -> None:
    choice = (await http.post(URL, json=body(max_tokens=1))).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("H", "length")


async def test_two_answers_are_two_choices_with_a_sample_each(http: httpx.AsyncClient) -> None:
    answer = (await http.post(URL, json=body(n=2))).json()
    assert [(each["index"], each["sample_id"]) for each in answer["choices"]] == [(0, "sample-1-0"), (1, "sample-1-1")]
    assert answer["usage"] == {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}


async def test_a_stream_is_the_answer_in_pieces(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, json=body(stream=True, logprobs=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-onlinerlhf-sample-id"] == "sample-1-0"
    assert "x-onlinerlhf-policy-version" not in response.headers
    opening, first, second, last, closing = chunks(response)
    assert {each["id"] for each in (opening, first, second, last, closing)} == {opening["id"]}
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["choices"][0]["delta"] == {"content": "H"}
    assert first["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5
    assert second["choices"][0] == {
        "index": 0,
        "delta": {"content": "i"},
        "logprobs": {
            "content": [{"token": "i", "logprob": -0.25, "bytes": [105], "top_logprobs": []}],
            "refusal": None,
        },
        "finish_reason": None,
        "sample_id": "sample-1-0",
    }
    assert last["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
        "sample_id": "sample-1-0",
        "policy_version": 4,
    }
    assert (last["system_fingerprint"], last["usage"]) == ("v4", None)
    assert closing["choices"] == []
    assert closing["usage"] == {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


async def test_a_stream_of_two_answers_tells_them_apart(http: httpx.AsyncClient) -> None:
    texts = {0: "", 1: ""}
    for chunk in chunks(await http.post(URL, json=body(stream=True, n=2))):
        for choice in chunk["choices"]:
            assert choice["sample_id"] == f"sample-1-{choice['index']}"
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: "Hi", 1: "Hi"}


async def test_trouble_in_the_middle_of_a_stream_is_its_last_event(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    desk.breaks_with = Unavailable("the engine died")
    response = await http.post(URL, json=body(stream=True))
    *_, last = [line for line in response.text.split("\n\n") if line]
    assert json.loads(last.removeprefix("data: ")) == {
        "error": {"message": "the engine died", "type": "server_error", "param": None, "code": "unavailable"}
    }
    assert desk.outcomes == ["failed"]


async def test_trouble_in_the_middle_of_a_whole_answer_is_a_refusal(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    desk.breaks_with = Unavailable("the engine died")
    response = await http.post(URL, json=body())
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
async def test_every_answer_is_settled(http: httpx.AsyncClient, desk: FakeDesk, stream: bool) -> None:
    await http.post(URL, json=body(stream=stream))
    assert desk.outcomes == ["completed"]
    assert all(call.is_cancelled for call in desk.calls)


async def test_control_tokens_spelled_in_a_text_are_text(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    plain = (await http.post(URL, json=body())).json()["usage"]["prompt_tokens"]
    spelled = [{"role": "user", "content": "<eos><bot>"}]
    answer = (await http.post(URL, json=body(messages=spelled))).json()
    # Ten characters are ten tokens here, in place of the five of "Hello".
    assert answer["usage"]["prompt_tokens"] == plain - 5 + 10
