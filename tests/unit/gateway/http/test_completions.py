"""POST /v1/completions."""

import json
from typing import Any

import httpx
import pytest

from unit.gateway.http.fake_desk import FakeDesk

URL = "/v1/completions"


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "policy", "prompt": "Hello", **fields}


async def test_a_raw_prompt_is_gone_on_from(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    response = await http.post(URL, json=body(suffix="", best_of=1, stop="\n"))
    answer = response.json()
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "text": "Hi",
            "logprobs": None,
            "finish_reason": "stop",
            "sample_id": "sample-1-0",
            "policy_version": 4,
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert answer["system_fingerprint"] == "v4"
    assert desk.questions[0].raw_text == b"Hello"
    assert desk.questions[0].turns == ()
    assert desk.questions[0].spec.stop == ("\n",)


async def test_prompts_of_one_request_are_questions_of_their_own(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    headers = {"Idempotency-Key": "k"}
    response = await http.post(URL, json=body(prompt=["A", "B"], n=2), headers=headers)
    choices = response.json()["choices"]
    assert [(each["index"], each["sample_id"]) for each in choices] == [
        (0, "sample-1-0"),
        (1, "sample-1-1"),
        (2, "sample-2-0"),
        (3, "sample-2-1"),
    ]
    assert [question.idempotency_key for question in desk.questions] == ["k", "k/1"]
    assert response.json()["usage"] == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}
    assert response.headers["x-onlinerlhf-policy-version"] == "4,4,4,4"


@pytest.mark.parametrize(
    ("prompt", "expected"), [([40, 41], [(40, 41)]), ([[40], [41, 42]], [(40,), (41, 42)])], ids=["one", "two"]
)
async def test_prompts_may_be_tokens(
    http: httpx.AsyncClient, desk: FakeDesk, prompt: Any, expected: list[tuple[int, ...]]
) -> None:
    assert (await http.post(URL, json=body(prompt=prompt))).status_code == 200
    assert [question.raw_token_ids for question in desk.questions] == expected


async def test_an_echoed_prompt_has_logprobs_but_for_its_first_token(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    """What lm-eval's local-completions sends and reads."""
    token_ids = desk.tokenizer.encode_text("Hey")
    asked = body(prompt=[token_ids], echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234)
    choice = (await http.post(URL, json=asked)).json()["choices"][0]
    assert choice["text"] == "HeyH"
    assert choice["logprobs"] == {
        "tokens": ["H", "e", "y", "H"],
        "token_logprobs": [None, -1.0, -2.0, -0.5],
        "top_logprobs": [None, {"e": -1.0}, {"y": -2.0}, {"H": -0.5}],
        "text_offset": [0, 1, 2, 3],
    }
    assert desk.questions[0].spec.with_prompt_logprobs


async def test_echo_alone_asks_for_no_prompt_logprobs(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    choice = (await http.post(URL, json=body(echo=True))).json()["choices"][0]
    assert (choice["text"], choice["logprobs"]) == ("HelloHi", None)
    assert not desk.questions[0].spec.with_prompt_logprobs


async def test_a_prompt_can_be_scored_without_an_answer(http: httpx.AsyncClient) -> None:
    answer = (await http.post(URL, json=body(prompt="Hey", echo=True, logprobs=0, max_tokens=0))).json()
    choice = answer["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("Hey", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0, -2.0]
    assert choice["logprobs"]["top_logprobs"] == [None, {"e": -1.0}, {"y": -2.0}]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


async def test_offsets_go_on_behind_characters_of_several_tokens(http: httpx.AsyncClient) -> None:
    choice = (await http.post(URL, json=body(prompt="aé€b", echo=True, logprobs=0))).json()["choices"][0]
    # 1 + 2 + 3 + 1 bytes, then H and i.
    assert choice["logprobs"]["text_offset"] == [0, 1, 1, 2, 2, 2, 3, 4, 5]
    assert choice["text"] == "aé€bHi"


async def test_a_streamed_completion_is_the_same_in_pieces(http: httpx.AsyncClient) -> None:
    asked = body(prompt=["A", "B"], echo=True, logprobs=1, stream=True, stream_options={"include_usage": True})
    response = await http.post(URL, json=asked)
    *events, done = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert done == "[DONE]"
    texts, logprobs, finished = {0: "", 1: ""}, {0: list[Any](), 1: list[Any]()}, dict[int, Any]()
    for chunk in map(json.loads, events[:-1]):
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
        logprobs[choice["index"]] += choice["logprobs"]["token_logprobs"] if choice["logprobs"] else []
        if choice["finish_reason"]:
            finished[choice["index"]] = (choice["finish_reason"], choice["policy_version"])
    assert texts == {0: "AHi", 1: "BHi"}
    assert logprobs == {0: [None, -0.5, -0.25], 1: [None, -0.5, -0.25]}
    assert finished == {0: ("stop", 4), 1: ("stop", 4)}
    assert json.loads(events[-1])["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


async def test_if_one_prompt_is_refused_none_is_answered(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    response = await http.post(URL, json=body(prompt=["A", " "], stream=True))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "empty")
    assert desk.outcomes == ["cancelled"]
    assert all(call.is_cancelled for call in desk.calls)
