"""POST /v1/chat/completions."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import Request
from starlette.responses import Response

from onlinerlhf.gateway.http import answers
from onlinerlhf.gateway.http.answers import Answer
from onlinerlhf.gateway.http.front import Caller, Front, caller
from onlinerlhf.gateway.http.logprobs import chat_logprobs
from onlinerlhf.gateway.http.requests import ChatRequest
from onlinerlhf.gateway.http.responses import ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatLogprobs
from onlinerlhf.gateway.requests.answering import Answering
from onlinerlhf.gateway.requests.lane import AnswerEnd, AnswerTokens


class Chat:
    """Answers conversations."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def create(self, request: Request, body: ChatRequest) -> Response:
        """Answer a conversation, whole or as it is sampled. With consent it may be learned from."""
        self._front.check_model(body.model)
        who = caller(request)
        if not body.stream:
            return await answers.unless_gone(request, self._whole(body, who))
        async with AsyncExitStack() as stack:
            question = self._front.chat_question(body, who)
            answering = await stack.enter_async_context(await self._front.ask(who, question))
            headers = answers.sample_headers([answering])
            chunks, seconds = self._chunks(body, answering), self._front.settings.stream_seconds
            return answers.EventStream(chunks, stack.pop_all(), headers, give_up_seconds=seconds)

    async def _whole(self, body: ChatRequest, who: Caller) -> Response:
        async with await self._front.ask(who, self._front.chat_question(body, who)) as answering:
            made = await answers.collect(answering)
        versions = [answers.policy_version(answer.ended) for answer in made]
        completion: ChatCompletion = {
            "id": _new_id(),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": answers.fingerprint(versions),
            "choices": [self._choice(index, answer, body) for index, answer in enumerate(made)],
            "usage": answers.usage(
                num_prompt_tokens=len(answering.prompt_token_ids),
                num_response_tokens=sum(answer.ended.num_tokens for answer in made),
            ),
        }
        return answers.as_json(completion, answers.sample_headers([answering], versions))

    def _choice(self, index: int, answer: Answer, body: ChatRequest) -> ChatChoice:
        logprobs: ChatLogprobs | None = None
        if body.logprobs:
            logprobs = {"content": [], "refusal": None}
            for part in answer.parts:
                logprobs["content"] += chat_logprobs(self._front.texts, part)["content"]
        return {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": logprobs,
            "finish_reason": answers.finish_word(answer.ended.finish_reason),
            "sample_id": answer.sample_id,
            "policy_version": answers.policy_version(answer.ended),
        }

    async def _chunks(self, body: ChatRequest, answering: Answering) -> AsyncIterator[ChatChunk]:
        chunk_id, created = _new_id(), int(time.time())

        def chunk(choices: list[ChatChunkChoice]) -> ChatChunk:
            made: ChatChunk = {
                "id": chunk_id,
                "object": "chat.completion.chunk",
                "created": created,
                "model": body.model,
                "choices": choices,
            }
            if body.includes_usage:
                made["usage"] = None
            return made

        for index, sample_id in enumerate(answering.sample_ids):
            yield chunk([_opening(index, sample_id)])
        num_tokens, versions = 0, []
        async for index, event in answering:
            piece = self._piece(index, answering.sample_ids[index], event, body)
            last = chunk([piece])
            if isinstance(event, AnswerEnd):
                num_tokens += event.num_tokens
                versions.append(answers.policy_version(event))
                last["system_fingerprint"] = answers.fingerprint(versions)
            elif not event.text and piece["logprobs"] is None:
                continue
            yield last
        if body.includes_usage:
            closing = chunk([])
            closing["system_fingerprint"] = answers.fingerprint(versions)
            closing["usage"] = answers.usage(
                num_prompt_tokens=len(answering.prompt_token_ids), num_response_tokens=num_tokens
            )
            yield closing

    def _piece(self, index: int, sample_id: str, event: AnswerTokens | AnswerEnd, body: ChatRequest) -> ChatChunkChoice:
        if isinstance(event, AnswerEnd):
            return {
                "index": index,
                "delta": {},
                "logprobs": None,
                "finish_reason": answers.finish_word(event.finish_reason),
                "sample_id": sample_id,
                "policy_version": answers.policy_version(event),
            }
        return {
            "index": index,
            "delta": {"content": event.text},
            "logprobs": chat_logprobs(self._front.texts, event) if body.logprobs else None,
            "finish_reason": None,
            "sample_id": sample_id,
        }


def _opening(index: int, sample_id: str) -> ChatChunkChoice:
    return {
        "index": index,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
        "sample_id": sample_id,
    }


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"
