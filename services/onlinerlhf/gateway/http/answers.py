"""Answers on their way to an HTTP client: whole, or as server-sent events, and never for a client that is gone."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import FinishReason
from onlinerlhf.gateway.http import errors
from onlinerlhf.gateway.http.responses import FinishWord, Usage
from onlinerlhf.gateway.requests.answering import Answering
from onlinerlhf.gateway.requests.lane import AnswerEnd, AnswerTokens
from onlinerlhf.runtime.tasks import end

log = logging.getLogger(__name__)

SAMPLE_ID_HEADER: Final = "x-onlinerlhf-sample-id"
"""Of all choices in order, with commas between."""
POLICY_VERSION_HEADER: Final = "x-onlinerlhf-policy-version"
"""In the same order."""
REPLAYED_HEADER: Final = "x-onlinerlhf-replayed"
"""Present where an earlier request with the same idempotency key made these samples."""

_CLIENT_GONE: Final = 499


@dataclass(slots=True)
class Answer:
    """One answer as it comes together."""

    sample_id: str
    parts: list[AnswerTokens] = field(default_factory=list)
    end: AnswerEnd | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(part.text for part in self.parts)

    @property
    def ended(self) -> AnswerEnd:
        """How it ended."""
        if self.end is None:
            raise Unavailable("an answer did not come to its end")
        return self.end


async def collect(answering: Answering) -> list[Answer]:
    """All answers to a question, whole."""
    answers = [Answer(sample_id) for sample_id in answering.sample_ids]
    async for index, event in answering:
        if isinstance(event, AnswerTokens):
            answers[index].parts.append(event)
        else:
            answers[index].end = event
    return answers


def finish_word(reason: FinishReason) -> FinishWord:
    """OpenAI has one word for a stop string and the policy's own end."""
    return "length" if reason is FinishReason.LENGTH else "stop"


def policy_version(ended: AnswerEnd) -> int:
    """The newest policy version that sampled any of the answer."""
    return max((span.version for span in ended.version_spans), default=0)


def fingerprint(versions: Iterable[int]) -> str:
    """The newest of them, where OpenAI tells which build answered."""
    return f"v{max(versions, default=0)}"


def usage(*, num_prompt_tokens: int, num_response_tokens: int) -> Usage:
    """As OpenAI counts: a prompt once, however many answers it gets."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_response_tokens,
        "total_tokens": num_prompt_tokens + num_response_tokens,
    }


def sample_headers(questions: Sequence[Answering], versions: Sequence[int] = ()) -> dict[str, str]:
    """Which samples these are, and who answered, where that is known already."""
    headers = {SAMPLE_ID_HEADER: ",".join(sample_id for each in questions for sample_id in each.sample_ids)}
    if versions:
        headers[POLICY_VERSION_HEADER] = ",".join(str(version) for version in versions)
    if any(each.given.replayed for each in questions):
        headers[REPLAYED_HEADER] = "true"
    return headers


def as_json(body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """A whole answer."""
    return Response(_encode(body), media_type="application/json", headers=headers)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response; or, as soon as the client is gone, the end of the work for it."""
    working = asyncio.create_task(work, name="http answer")
    gone = asyncio.create_task(_gone(request), name="http client gone")
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=_CLIENT_GONE)
    finally:
        gone.cancel()
        if not working.done():
            await end([working])


class EventStream(StreamingResponse):
    """Server-sent events. What `resources` holds is let go at the end, whoever ends it and however early."""

    def __init__(
        self,
        chunks: AsyncIterator[Mapping[str, Any]],
        resources: AsyncExitStack,
        headers: Mapping[str, str],
        *,
        give_up_seconds: float,
    ) -> None:
        no_buffering = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(chunks), media_type="text/event-stream", headers={**headers, **no_buffering})
        self._resources = resources
        self._give_up_seconds = give_up_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stops in the middle when the client is gone, or does not read what is sent."""
        try:
            async with asyncio.timeout(self._give_up_seconds), self._resources:
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.info("a stream was not read to its end in time", extra={"gave_up_seconds": self._give_up_seconds})


async def _events(chunks: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield b"data: " + _encode(chunk) + b"\n\n"
    except Exception as error:  # noqa: BLE001 - the edge of a stream, whose status is long sent
        yield b"data: " + _encode(errors.event_of(error)) + b"\n\n"
    else:
        yield b"data: [DONE]\n\n"


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
