"""POST /v1/completions."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response

from onlinerlhf.gateway.http import answers
from onlinerlhf.gateway.http.answers import Answer
from onlinerlhf.gateway.http.front import Caller, Front, caller
from onlinerlhf.gateway.http.logprobs import completion_logprobs, extend, no_logprobs, prompt_logprobs
from onlinerlhf.gateway.http.requests import CompletionRequest
from onlinerlhf.gateway.http.responses import Completion, CompletionChoice, CompletionLogprobs, Usage
from onlinerlhf.gateway.http.tokens import TokenTexts
from onlinerlhf.gateway.requests.answering import Answering
from onlinerlhf.gateway.requests.lane import AnswerEnd, AnswerTokens


@dataclass(slots=True, kw_only=True)
class _Choice:
    """One continuation, piece by piece."""

    index: int
    sample_id: str
    prompt_token_ids: tuple[int, ...]
    body: CompletionRequest
    texts: TokenTexts
    num_characters: int = 0
    """Of all tokens so far, an echoed prompt's included."""
    has_begun: bool = False

    def piece(self, event: AnswerTokens) -> CompletionChoice:
        """What it adds to the choice's text and logprobs; the first one with the prompt, where echoed."""
        text, logprobs = "", no_logprobs()
        if self.body.echo and not self.has_begun:
            text = self.texts.all(self.prompt_token_ids)
            self.num_characters = len(text)
            if event.prompt_logprobs is not None:
                extend(logprobs, prompt_logprobs(self.texts, self.prompt_token_ids, event.prompt_logprobs))
        self.has_begun = True
        # Where none was asked for, the one token that had to be sampled is not shown.
        if self.body.max_tokens != 0:
            text += event.text
            if self.body.logprobs is not None:
                extend(logprobs, completion_logprobs(self.texts, event, start=self.num_characters))
                self.num_characters += len(self.texts.all(event.token_ids))
        return self._made(text, logprobs if self.body.logprobs is not None else None)

    def last(self, event: AnswerEnd) -> CompletionChoice:
        """How it ended."""
        made = self._made("", None)
        made["finish_reason"] = "length" if self.body.max_tokens == 0 else answers.finish_word(event.finish_reason)
        made["policy_version"] = answers.policy_version(event)
        return made

    def num_tokens(self, event: AnswerEnd) -> int:
        """What the usage counts."""
        return 0 if self.body.max_tokens == 0 else event.num_tokens

    def _made(self, text: str, logprobs: CompletionLogprobs | None) -> CompletionChoice:
        return {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": None,
            "sample_id": self.sample_id,
        }


class Completions:
    """Goes on from raw text or tokens."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def create(self, request: Request, body: CompletionRequest) -> Response:
        """Go on from raw prompts, without the chat template. Never learned from."""
        self._front.check_model(body.model)
        who = caller(request)
        if not body.stream:
            return await answers.unless_gone(request, self._whole(body, who))
        async with AsyncExitStack() as stack:
            asked = await self._ask_all(stack, body, who)
            chunks, headers = self._chunks(body, asked), answers.sample_headers(asked)
            seconds = self._front.settings.stream_seconds
            return answers.EventStream(chunks, stack.pop_all(), headers, give_up_seconds=seconds)

    async def _ask_all(self, stack: AsyncExitStack, body: CompletionRequest, who: Caller) -> list[Answering]:
        """All prompts are being answered from here on; if one is refused, none is."""
        return [
            await stack.enter_async_context(await self._front.ask(who, question))
            for question in self._front.completion_questions(body, who)
        ]

    async def _whole(self, body: CompletionRequest, who: Caller) -> Response:
        async with AsyncExitStack() as stack:
            asked = await self._ask_all(stack, body, who)
            made = [await answers.collect(answering) for answering in asked]
        choices: list[CompletionChoice] = []
        num_tokens = 0
        for answering, several in zip(asked, made, strict=True):
            for choice, answer in zip(self._choices(body, answering, at=len(choices)), several, strict=True):
                choices.append(_joined(choice, answer))
                num_tokens += choice.num_tokens(answer.ended)
        versions = [choice.get("policy_version", 0) for choice in choices]
        completion: Completion = {
            "id": _new_id(),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": answers.fingerprint(versions),
            "choices": choices,
            "usage": _usage(asked, num_tokens),
        }
        return answers.as_json(completion, answers.sample_headers(asked, versions))

    async def _chunks(self, body: CompletionRequest, asked: Sequence[Answering]) -> AsyncIterator[Completion]:
        """Prompt by prompt: all are being sampled, the later ones wait to be read."""
        chunk_id, created = _new_id(), int(time.time())

        def chunk(choices: list[CompletionChoice]) -> Completion:
            made: Completion = {
                "id": chunk_id,
                "object": "text_completion",
                "created": created,
                "model": body.model,
                "choices": choices,
            }
            if body.includes_usage:
                made["usage"] = None
            return made

        num_tokens, at = 0, 0
        for answering in asked:
            choices = self._choices(body, answering, at=at)
            at += len(choices)
            async for index, event in answering:
                if isinstance(event, AnswerEnd):
                    num_tokens += choices[index].num_tokens(event)
                    last = chunk([choices[index].last(event)])
                    last["system_fingerprint"] = answers.fingerprint([answers.policy_version(event)])
                    yield last
                    continue
                piece = choices[index].piece(event)
                if piece["text"] or piece["logprobs"]:
                    yield chunk([piece])
        if body.includes_usage:
            closing = chunk([])
            closing["usage"] = _usage(asked, num_tokens)
            yield closing

    def _choices(self, body: CompletionRequest, answering: Answering, *, at: int) -> list[_Choice]:
        return [
            _Choice(
                index=at + number,
                sample_id=sample_id,
                prompt_token_ids=answering.prompt_token_ids,
                body=body,
                texts=self._front.texts,
            )
            for number, sample_id in enumerate(answering.sample_ids)
        ]


def _joined(choice: _Choice, answer: Answer) -> CompletionChoice:
    """All pieces in one. An answer has at least one: a token is always sampled."""
    whole, logprobs = choice.last(answer.ended), no_logprobs()
    for part in answer.parts:
        piece = choice.piece(part)
        whole["text"] += piece["text"]
        if piece["logprobs"] is not None:
            extend(logprobs, piece["logprobs"])
    whole["logprobs"] = None if choice.body.logprobs is None else logprobs
    return whole


def _usage(asked: Sequence[Answering], num_tokens: int) -> Usage:
    num_prompt_tokens = sum(len(answering.prompt_token_ids) for answering in asked)
    return answers.usage(num_prompt_tokens=num_prompt_tokens, num_response_tokens=num_tokens)


def _new_id() -> str:
    return f"cmpl-{uuid.uuid4().hex}"
