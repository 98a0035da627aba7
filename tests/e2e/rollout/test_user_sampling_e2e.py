"""What a user may ask for beside tokens, on real vLLM, held against the weights' own forward pass."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
import torch
from transformers import AutoTokenizer

from e2e.rollout.room import PROMPT, Room, eventually, moved, open_room
from onlinerlhf.core.samples import SamplingSpec
from onlinerlhf.models.policy import load_policy
from onlinerlhf.v1 import records_pb2, rollout_pb2

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
    # vLLM's own imports and processes.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
EXACT = 1e-4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    directory: Path = tmp_path_factory.mktemp("sampling")
    async with open_room(directory, tied=True) as room:
        # Fresh weights find all tokens about equally likely.
        room.learner.publish(moved(room.initial(), seed=1, scale=0.3))
        assert await room.updater.update_once()
        yield room


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A stream, put together."""

    messages: list[rollout_pb2.RolloutGenerateResponse]

    @property
    def token_ids(self) -> list[int]:
        return [token_id for message in self.messages for token_id in message.token_ids]

    @property
    def logprobs(self) -> np.ndarray:
        return np.array([logprob for message in self.messages for logprob in message.logprobs])

    @property
    def text(self) -> str:
        return "".join(message.text for message in self.messages)

    @property
    def tops(self) -> list[rollout_pb2.TopLogprobs]:
        return [top for message in self.messages for top in message.top_logprobs]

    @property
    def finish_reason(self) -> int:
        assert all(not message.finish_reason for message in self.messages[:-1])
        return self.messages[-1].finish_reason

    @property
    def num_spanned(self) -> int:
        return sum(span.num_tokens for span in self.messages[-1].version_spans)


async def ask(room: Room, *, prompt: tuple[int, ...] = PROMPT, **fields: Any) -> Answer:
    fields = {"max_tokens": 24, "temperature": 1.0, **fields}
    request = rollout_pb2.RolloutGenerateRequest(prompt_token_ids=prompt, **fields)
    return Answer(messages=[message async for message in room.stub.Generate(request, timeout=60)])


def reference(room: Room, token_ids: list[int], *, temperature: float = 1.0) -> np.ndarray:
    """Row t: log pi(. | token_ids[:t + 1]), nats, from the weights being served. [T, V]"""
    model = load_policy(room.model_dir)
    tensors = room.learner.versions[room.engine.version]
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
    model.tie_weights()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0].float()
    logprobs: np.ndarray = (logits / temperature).log_softmax(-1).numpy()
    return logprobs


def largest_error(rows: np.ndarray, token_ids: list[int], logprobs: np.ndarray, tops: list[Any], num: int) -> float:
    """Of the tokens' own logprobs and of the `num` likeliest at each position, which must be the likeliest indeed."""
    errors = [np.abs(logprobs - rows[np.arange(len(token_ids)), token_ids]).max()]
    for row, top in zip(rows, tops, strict=True):
        assert len(set(top.token_ids)) == len(top.token_ids) == num
        errors.append(np.abs(np.array(top.logprobs) - row[list(top.token_ids)]).max())
        errors.append(np.abs(np.array(top.logprobs) - np.sort(row)[::-1][:num]).max())
    return float(max(errors))


def answer_error(room: Room, answer: Answer, *, num: int, temperature: float = 1.0) -> float:
    rows = reference(room, [*PROMPT, *answer.token_ids], temperature=temperature)[len(PROMPT) - 1 : -1]
    return largest_error(rows, answer.token_ids, answer.logprobs, answer.tops, num)


async def test_a_stop_string_across_two_tokens_ends_the_answer_before_it(room: Room) -> None:
    plain = await ask(room, temperature=0.0)
    tokenizer = AutoTokenizer.from_pretrained(room.model_dir)
    texts = [tokenizer.decode(plain.token_ids[: count + 1]) for count in range(len(plain.token_ids))]
    # The last character of one token and the first of the next, both printed at once and not there before.
    stop, num_tokens = next(
        (before[-1] + after[len(before)], count)
        for count, (before, after) in enumerate(itertools.pairwise(texts), start=2)
        if before and after.startswith(before) and len(after) > len(before)
        if "�" not in before[-1] + after[len(before)] and before[-1] + after[len(before)] not in before
    )
    stopped = await ask(room, temperature=0.0, stop=["never said", stop, "nor this, which is longer"])

    assert stopped.finish_reason == records_pb2.FINISH_REASON_STOP
    assert stopped.text == plain.text[: plain.text.index(stop)]
    # The tokens of the stop string were sampled, so they are told and counted.
    assert stopped.token_ids == plain.token_ids[:num_tokens]
    assert stopped.num_spanned == len(stopped.logprobs) == num_tokens
    assert np.abs(stopped.logprobs - plain.logprobs[:num_tokens]).max() < EXACT


async def test_text_held_back_for_a_stop_string_is_told_when_it_was_none(room: Room) -> None:
    plain = await ask(room, temperature=0.0)
    watched = await ask(room, temperature=0.0, stop=["x" * 64])

    assert plain.finish_reason == watched.finish_reason == records_pb2.FINISH_REASON_LENGTH
    assert watched.text == plain.text
    assert watched.token_ids == plain.token_ids
    # Nothing shorter than the stop string can be told before the end.
    assert [message.text for message in watched.messages[:-1]] == [""] * (len(watched.messages) - 1)


async def test_training_in_the_same_batch_is_as_exact_as_alone(room: Room) -> None:
    users = [asyncio.create_task(ask(room, num_top_logprobs=20, stop=["x"], temperature=t)) for t in (0.0, 1.0, 0.5)]
    spec = SamplingSpec(num_responses=4, max_tokens=24)
    rollouts = await room.engine.sample(PROMPT, spec, request_id="beside-users")
    await asyncio.gather(*users)

    weights = room.learner.versions[room.engine.version]
    assert max(np.abs(room.errors(weights, PROMPT, rollout)).max() for rollout in rollouts) < EXACT


async def test_at_temperature_1_the_likeliest_tokens_are_the_models_own(room: Room) -> None:
    answer = await ask(room, num_top_logprobs=5)
    assert answer_error(room, answer, num=5) < EXACT


async def test_at_temperature_0_logprobs_are_the_models_own_alone_and_in_a_batch_with_others(room: Room) -> None:
    alone = await ask(room, temperature=0.0, num_top_logprobs=20)
    others = [asyncio.create_task(ask(room, temperature=t, top_p=0.5, max_tokens=60)) for t in (0.3, 2.0)]
    beside = await ask(room, temperature=0.0, top_p=0.5, num_top_logprobs=20)
    assert not all(other.done() for other in others)
    await asyncio.gather(*others)

    assert beside.token_ids == alone.token_ids
    assert answer_error(room, alone, num=20) < EXACT
    assert answer_error(room, beside, num=20) < EXACT
    assert [top.token_ids[0] for top in alone.tops] == alone.token_ids


async def test_at_another_temperature_they_are_of_the_distribution_that_was_drawn_from(room: Room) -> None:
    answer = await ask(room, num_top_logprobs=3, temperature=0.5)
    assert answer_error(room, answer, num=3, temperature=0.5) < EXACT


async def test_top_p_leaves_only_what_may_be_drawn(room: Room) -> None:
    answer = await ask(room, num_top_logprobs=20, top_p=0.3)
    rows = np.exp(reference(room, [*PROMPT, *answer.token_ids])[len(PROMPT) - 1 : -1])

    for row, top, token_id, logprob in zip(rows, answer.tops, answer.token_ids, answer.logprobs, strict=True):
        likeliest = np.sort(row)[::-1]
        num_kept = int(np.searchsorted(np.cumsum(likeliest), 0.3) + 1)
        assert len(top.token_ids) == min(num_kept, 20)
        assert num_kept > 20 or token_id in top.token_ids
        assert abs(logprob - np.log(row[token_id] / likeliest[:num_kept].sum())) < EXACT
        assert np.isfinite(top.logprobs).all()


@pytest.mark.parametrize("num", [0, 4])
async def test_prompt_logprobs_are_the_models_own_though_the_prompt_is_cached(room: Room, num: int) -> None:
    prompt = tuple(range(40, 140))
    # Blocks of it are in the prefix cache now, and its logprobs are not.
    await ask(room, prompt=prompt, max_tokens=1)
    answer = await ask(
        room, prompt=prompt, max_tokens=1, temperature=0.5, num_top_logprobs=num, with_prompt_logprobs=True
    )
    told = answer.messages[0].prompt_logprobs

    assert len(answer.messages) == 1
    assert answer.finish_reason == records_pb2.FINISH_REASON_LENGTH
    assert told.logprobs[0] == 0.0
    assert len(told.logprobs) == 100
    assert len(told.top) == (100 if num else 0)
    assert not any(top.token_ids for top in told.top[:1])
    rows = reference(room, list(prompt))[:-1]
    tops = list(told.top[1:]) or [rollout_pb2.TopLogprobs()] * 99
    if num:
        assert largest_error(rows, list(prompt[1:]), np.array(told.logprobs[1:]), tops, num) < EXACT
    assert np.abs(np.array(told.logprobs[1:]) - rows[np.arange(99), prompt[1:]]).max() < EXACT


async def test_prompt_logprobs_come_once_and_only_when_asked_for(room: Room) -> None:
    asked, plain = await ask(room, with_prompt_logprobs=True), await ask(room)

    assert [message.HasField("prompt_logprobs") for message in asked.messages] == [True] + [False] * (
        len(asked.messages) - 1
    )
    assert not any(message.HasField("prompt_logprobs") or message.top_logprobs for message in plain.messages)


async def test_a_prompt_of_one_token_has_no_logprobs_to_tell(room: Room) -> None:
    answer = await ask(room, prompt=(7,), max_tokens=1, with_prompt_logprobs=True, num_top_logprobs=2)

    told = answer.messages[0].prompt_logprobs
    assert list(told.logprobs) == [0.0]
    assert [list(top.token_ids) for top in told.top] == [[]]


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
async def test_the_same_seed_draws_the_same_tokens_alone_and_in_a_batch(room: Room, seed: int) -> None:
    alone = await ask(room, seed=seed)
    others = [asyncio.create_task(ask(room, max_tokens=60)) for _ in range(2)]
    beside = await ask(room, seed=seed)
    await asyncio.gather(*others)

    assert beside.token_ids == alone.token_ids
    assert (await ask(room, seed=seed ^ 1)).token_ids != alone.token_ids


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop": ["a", "b", "c", "d", "e"]}, "5 stop strings; at most 4"),
        ({"stop": [""]}, "a stop string of 0 characters"),
        ({"stop": ["é" * 65]}, "a stop string of 65 characters"),
        ({"num_top_logprobs": 21}, "num_top_logprobs is 21"),
        ({"num_top_logprobs": 2**32 - 1}, "num_top_logprobs is 4294967295"),
        ({"top_p": -0.1}, "top_p is -0.1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"temperature": 2.1}, "temperature is 2.1"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused(room: Room, fields: dict[str, Any], message: str) -> None:
    # This room's server has no interceptor to turn errors into status codes; the message shows which one it is.
    with pytest.raises(grpc.aio.AioRpcError, match=message):
        await ask(room, **fields)
    assert room.engine.trouble() == ""


async def test_the_most_that_can_be_asked_for_is_answered(room: Room) -> None:
    stop = ["é" * 64, "😀" * 64, "a" * 64, "\x00"]
    answer = await ask(
        room, stop=stop, num_top_logprobs=20, top_p=1e-9, temperature=2.0, seed=1, with_prompt_logprobs=True
    )

    # Of a nucleus this small one token is left, and it is certain.
    assert all(len(top.token_ids) == 1 for top in answer.tops)
    assert answer.logprobs.max() == answer.logprobs.min() == 0.0


async def test_a_slow_reader_gets_the_same_evidence_in_fewer_pieces(room: Room) -> None:
    # These import vLLM, which reads the environment as it is imported.
    from onlinerlhf.rollout.engine import Wishes
    from onlinerlhf.rollout.service import _encode

    spec = SamplingSpec(num_responses=1, max_tokens=60)
    wishes = Wishes(num_top_logprobs=5, with_prompt_logprobs=True)
    messages = []
    async for piece in room.engine.stream(PROMPT, spec, request_id="slow", wishes=wishes):
        messages.append(_encode(piece))
        await asyncio.sleep(0.05)
    answer = Answer(messages=messages)

    assert max(len(message.token_ids) for message in messages) > 5
    assert len(answer.tops) == len(answer.token_ids) == answer.num_spanned
    assert answer_error(room, answer, num=5) < EXACT
    assert len(messages[0].prompt_logprobs.logprobs) == len(PROMPT)


async def test_candidates_are_not_decoded_one_by_one(room: Room) -> None:
    request = asyncio.create_task(ask(room, max_tokens=200, num_top_logprobs=5))
    states = room.engine._llm.output_processor.request_states
    await eventually(lambda: bool(states), seconds=5)
    [state] = states.values()

    assert state.logprobs_processor.tokenizer is None
    assert state.detokenizer.tokenizer is not None
    await request
