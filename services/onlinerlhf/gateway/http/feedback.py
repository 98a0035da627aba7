"""POST /v1/feedback: judgements of answers that the key received. Ours, not OpenAI's."""

import uuid
from typing import Annotated, Literal

from fastapi import Body, Request
from pydantic import Field
from starlette.responses import Response

from onlinerlhf.gateway.http import answers
from onlinerlhf.gateway.http.front import Front, caller
from onlinerlhf.gateway.http.requests import SampleId, utf8
from onlinerlhf.gateway.http.responses import FeedbackObject
from onlinerlhf.gateway.http.strictness import StrictModel
from onlinerlhf.gateway.kept.judgements import MAX_RANKED, Correction, Judgement, Ranking, Score, Thumb


class ThumbFields(StrictModel):
    """Good or bad."""

    kind: Literal["thumb"]
    sample_id: SampleId
    up: bool

    def judgement(self) -> Judgement:
        """As the desk takes it."""
        return Thumb(sample_id=self.sample_id, up=self.up)


class ScoreFields(StrictModel):
    """How good."""

    kind: Literal["score"]
    sample_id: SampleId
    value: float = Field(ge=0, le=1, allow_inf_nan=False, description="From 0, worst, to 1, best.")

    def judgement(self) -> Judgement:
        """As the desk takes it."""
        return Score(sample_id=self.sample_id, value=float(self.value))


class CorrectionFields(StrictModel):
    """What the answer should have been."""

    kind: Literal["correction"]
    sample_id: SampleId
    text: str = Field(min_length=1)

    def judgement(self) -> Judgement:
        """As the desk takes it."""
        return Correction(sample_id=self.sample_id, text=utf8(self.text))


class RankingFields(StrictModel):
    """Answers to one prompt, best first."""

    kind: Literal["ranking"]
    sample_ids: Annotated[list[SampleId], Field(fail_fast=True)] = Field(min_length=2, max_length=MAX_RANKED)

    def judgement(self) -> Judgement:
        """As the desk takes it."""
        return Ranking(sample_ids=tuple(self.sample_ids))


FeedbackFields = Annotated[
    ThumbFields | ScoreFields | CorrectionFields | RankingFields, Field(discriminator="kind"), Body()
]


class FeedbackEndpoint:
    """Takes judgements."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def create(self, request: Request, body: FeedbackFields) -> Response:
        """Judge answers that this key received. Stored for the reward model; never a reward by itself."""
        who = caller(request)
        stored = await self._front.desk.give_feedback(
            who.credential,
            body.judgement(),
            # Without a key of the client's no later request is the same one.
            idempotency_key=who.idempotency_key or uuid.uuid4().hex,
            give_up_seconds=self._front.settings.feedback_seconds,
        )
        made: FeedbackObject = {"id": stored.feedback_id, "object": "feedback", "replayed": stored.replayed}
        return answers.as_json(made, {})
