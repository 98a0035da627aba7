"""What all endpoints share: the desk, and how a request becomes a question for it."""

import re
import time
from dataclasses import dataclass, field
from typing import Final, Protocol

from starlette.requests import Request

from onlinerlhf.core.errors import InvalidInput, NotFound
from onlinerlhf.gateway.access.callers import ApiKey, Scope
from onlinerlhf.gateway.admission.consent import ConsentClaim
from onlinerlhf.gateway.http.requests import ChatRequest, CompletionRequest, SamplingFields, utf8
from onlinerlhf.gateway.http.settings import FrontSettings
from onlinerlhf.gateway.http.tokens import Decoder, TokenTexts
from onlinerlhf.gateway.kept.judgements import Judgement
from onlinerlhf.gateway.requests.answering import Answering
from onlinerlhf.gateway.requests.lane import AnswerSpec
from onlinerlhf.gateway.requests.questions import Question

DEFAULT_USER: Final = "default"
"""Whose prompts are those of a client that names nobody."""
_SEEDS: Final = 2**63
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class ModelNotFound(NotFound):
    """Another model than the one there is."""

    reason = "model_not_found"


class Stored(Protocol):
    """Feedback that is stored."""

    @property
    def feedback_id(self) -> str:
        """Its id."""

    @property
    def replayed(self) -> bool:
        """Whether an earlier request with the same idempotency key stored it."""


class FrontDesk(Protocol):
    """What the front asks of the gateway's desk."""

    @property
    def tokenizer(self) -> Decoder:
        """Of the served model."""

    async def authenticate(self, credential: str | None, *, scope: Scope) -> ApiKey:
        """Raises Unauthenticated, PermissionDenied or Unavailable."""

    async def ask(self, credential: str | None, question: Question, *, give_up_seconds: float) -> Answering:
        """Begin to answer. Raises before anything is sampled."""

    async def give_feedback(
        self, credential: str | None, judgement: Judgement, *, idempotency_key: str, give_up_seconds: float
    ) -> Stored:
        """Store a judgement of answers that this key received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a request's headers say."""

    credential: str | None
    """What follows `Bearer`, unchecked."""
    idempotency_key: str
    """Empty: none."""
    traceparent: str
    """Empty: none that can be read."""


def caller(request: Request) -> Caller:
    """Reads the headers; what they hold is for the desk to judge. Raises InvalidInput."""
    idempotency_key = request.headers.get("idempotency-key")
    if idempotency_key == "":
        # To the desk that would be none.
        raise InvalidInput("Idempotency-Key is empty", reason="bad_idempotency_key")
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    traceparent = request.headers.get("traceparent", "")
    return Caller(
        credential=credential.strip() if scheme.lower() == "bearer" else None,
        idempotency_key=idempotency_key or "",
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Shared by all endpoints."""

    desk: FrontDesk
    settings: FrontSettings
    texts: TokenTexts
    created: int = field(default_factory=lambda: int(time.time()))
    """When the model began to be served, since 1970-01-01 UTC."""

    def check_model(self, name: str) -> None:
        """Raises NotFound where another model is asked for."""
        if name != self.settings.model_name:
            raise ModelNotFound("there is no model of this name; /v1/models lists what there is")

    async def ask(self, who: Caller, question: Question) -> Answering:
        """Begin to answer."""
        return await self.desk.ask(who.credential, question, give_up_seconds=self.settings.answer_seconds)

    def chat_question(self, body: ChatRequest, who: Caller) -> Question:
        """A conversation; `developer` is OpenAI's newer word for `system`."""
        turns = tuple(("system" if each.role == "developer" else each.role, each.raw) for each in body.messages)
        max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        return Question(
            turns=turns,
            user_id=_user(body),
            spec=self._spec(body, max_tokens=max_tokens, num_top_logprobs=body.top_logprobs or 0),
            num_answers=body.n or 1,
            idempotency_key=who.idempotency_key,
            consent=_claim(body),
            use_case=body.use_case or "",
            traceparent=who.traceparent,
        )

    def completion_questions(self, body: CompletionRequest, who: Caller) -> list[Question]:
        """One a prompt."""
        spec = self._spec(
            body,
            # One token is sampled and not shown: there is no answer without one.
            max_tokens=1 if body.max_tokens == 0 else body.max_tokens,
            num_top_logprobs=body.logprobs or 0,
            with_prompt_logprobs=bool(body.echo) and body.logprobs is not None,
        )
        return [
            Question(
                raw_text=utf8(prompt) if isinstance(prompt, str) else None,
                raw_token_ids=None if isinstance(prompt, str) else tuple(prompt),
                user_id=_user(body),
                spec=spec,
                num_answers=body.n or 1,
                idempotency_key=_numbered(who.idempotency_key, number),
                consent=_claim(body),
                use_case=body.use_case or "",
                traceparent=who.traceparent,
            )
            for number, prompt in enumerate(body.prompts)
        ]

    def _spec(
        self,
        body: SamplingFields,
        *,
        max_tokens: int | None,
        num_top_logprobs: int,
        with_prompt_logprobs: bool = False,
    ) -> AnswerSpec:
        return AnswerSpec(
            max_tokens=self.settings.default_max_tokens if max_tokens is None else max_tokens,
            temperature=1.0 if body.temperature is None else float(body.temperature),
            top_p=1.0 if body.top_p is None else float(body.top_p),
            seed=None if body.seed is None else body.seed % _SEEDS,
            stop=body.stops,
            num_top_logprobs=num_top_logprobs,
            with_prompt_logprobs=with_prompt_logprobs,
        )


def _user(body: SamplingFields) -> str:
    return body.user or body.safety_identifier or DEFAULT_USER


def _claim(body: SamplingFields) -> ConsentClaim | None:
    if body.consent is None:
        return None
    return ConsentClaim(notice_version=body.consent.notice_version, shown_at_seconds=float(body.consent.shown_at))


def _numbered(idempotency_key: str, number: int) -> str:
    """Prompts of one request have one key in common, and each is a request of its own to the desk."""
    return f"{idempotency_key}/{number}" if idempotency_key and number else idempotency_key
