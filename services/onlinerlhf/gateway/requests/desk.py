"""The one way in, by gRPC or HTTP alike.

opening (form, key, tokens, limits, receipt) -> answer          always, and never slowed by learning
                                            └-> intake -> pool  whatever becomes of it is not told

The desk refuses before anything is sampled; from then on the answer goes its way, and its account is settled when the
client already has it.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.access.authentication import Authenticator
from onlinerlhf.gateway.access.callers import ApiKey, Scope
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.access.limits import Meter
from onlinerlhf.gateway.admission.intake import Intake, Offer, Verdict
from onlinerlhf.gateway.kept.answers import Answers
from onlinerlhf.gateway.kept.feedback import Feedback, FeedbackReceipt
from onlinerlhf.gateway.kept.judgements import Judgement
from onlinerlhf.gateway.requests import form
from onlinerlhf.gateway.requests.afterwards import Afterwards
from onlinerlhf.gateway.requests.answering import Answering, Made
from onlinerlhf.gateway.requests.lane import UserLane
from onlinerlhf.gateway.requests.opening import Opened, Opener
from onlinerlhf.gateway.requests.questions import Given, Question
from onlinerlhf.gateway.requests.receipts import ReceiptKind, Receipts
from onlinerlhf.gateway.requests.samples import SampleReader, SampleState
from onlinerlhf.gateway.rights.erasure import Erasure
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.runtime import tracing
from onlinerlhf.runtime.redis import Patience

VERDICT_SECONDS: Final = 30.0
"""How long the record of an answer waits for the verdict on learning from its prompt."""
AFTERWARDS_SECONDS: Final = 30.0
"""How long what is done after an answer is tried again while Redis is away."""
STORED: Final = (Verdict.ADMITTED, Verdict.HELD_OUT, Verdict.DUPLICATE)
"""Answers to prompts that passed the screens, and of which one is or was in the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What the desk asks and tells beside the opening."""

    authenticator: Authenticator
    hash_key: HashKey
    meter: Meter
    receipts: Receipts
    intake: Intake
    answers: Answers
    feedback: Feedback
    samples: SampleReader
    erasure: Erasure
    patience: Patience


class Desk:
    """Answers, submissions, feedback, withdrawals, and where a sample is."""

    def __init__(
        self, opener: Opener, stores: Stores, lane: UserLane, tokenizer: PromptTokenizer, afterwards: Afterwards
    ) -> None:
        self.tokenizer = tokenizer
        self._opener = opener
        self._stores = stores
        self._lane = lane
        self._afterwards = afterwards

    async def authenticate(self, credential: str | None, *, scope: Scope) -> ApiKey:
        """Raises Unauthenticated, PermissionDenied, or Unavailable where the key cannot be checked."""
        return await self._stores.authenticator.authenticate(credential, scope=scope)

    async def ask(self, credential: str | None, question: Question, *, give_up_seconds: float) -> Answering:
        """Begin to answer. Raises before anything is sampled."""
        num_response_tokens = question.num_answers * question.spec.max_tokens
        opened = await self._opener.open(
            credential, question, kind=ReceiptKind.ANSWER, num_response_tokens=num_response_tokens
        )
        current = tracing.begin("gateway.answer", parent=question.traceparent)
        calls = [
            self._lane.start(
                opened.token_ids,
                replace(question.spec, seed=_seed(question, number)),
                give_up_seconds=give_up_seconds,
                traceparent=current.traceparent,
            )
            for number in range(question.num_answers)
        ]
        verdict = self._stores.intake.offer(_offer(opened, current.traceparent))

        def on_end(made: Sequence[Made], outcome: str) -> None:
            num_tokens = sum(call.num_tokens for call in calls)
            current.end(error="" if outcome == "completed" else outcome, attributes={"num_tokens": num_tokens})
            self._afterwards.do("close an answer", self._close(opened, made, outcome, num_tokens, verdict))

        return Answering(
            calls, opened.claim.sample_ids, given=opened.given, prompt_token_ids=opened.token_ids, on_end=on_end
        )

    async def submit(self, credential: str | None, question: Question, *, give_up_seconds: float) -> Given:
        """Offer as training data, and wait until that is safe. The receipt does not tell what became of it."""
        (outcome,) = await self.submit_all(credential, [question], give_up_seconds=give_up_seconds)
        if isinstance(outcome, OnlineRLHFError):
            raise outcome
        return outcome

    async def submit_all(
        self, credential: str | None, questions: Sequence[Question], *, give_up_seconds: float
    ) -> list[Given | OnlineRLHFError]:
        """The same for many, which costs less a piece: each with what `submit` would return or raise."""
        started = time.monotonic()
        outcomes = await self._opener.open_prompts(credential, questions)
        opened = [each for each in outcomes if isinstance(each, Opened)]
        left_seconds = max(give_up_seconds - (time.monotonic() - started), 0.0)
        verdicts = iter(await self._admit(opened, give_up_seconds=left_seconds))
        seconds = time.monotonic() - started
        for _ in questions:
            metrics.SUBMIT_SECONDS.observe(seconds)
        return [_told(each, next(verdicts)) if isinstance(each, Opened) else each for each in outcomes]

    async def _admit(self, opened: Sequence[Opened], *, give_up_seconds: float) -> list[Verdict | OnlineRLHFError]:
        spans = [tracing.begin("gateway.submission", parent=each.question.traceparent) for each in opened]
        offers = [_offer(each, span.traceparent) for each, span in zip(opened, spans, strict=True)]
        errors = ["CancelledError"] * len(opened)
        try:
            verdicts = await self._stores.intake.admit_all(offers, give_up_seconds=give_up_seconds)
            errors = [type(each).__name__ if isinstance(each, OnlineRLHFError) else "" for each in verdicts]
        except asyncio.CancelledError:
            for each in opened:
                each.decision.write(outcome="cancelled")
            raise
        finally:
            for span, error in zip(spans, errors, strict=True):
                span.end(error=error)
        return verdicts

    async def give_feedback(
        self, credential: str | None, judgement: Judgement, *, idempotency_key: str, give_up_seconds: float
    ) -> FeedbackReceipt:
        """Store a judgement of answers that this key received."""
        key = await self.authenticate(credential, scope=Scope.FEEDBACK)
        form.name(idempotency_key, what="idempotency_key")
        return await self._stores.patience(
            "storing feedback",
            lambda: self._stores.feedback.give(key, judgement, idempotency_key=idempotency_key),
            give_up_seconds=give_up_seconds,
        )

    async def withdraw(self, credential: str | None, user_id: str, *, give_up_seconds: float) -> int:
        """The user's consent so far counts no more. How many samples on their way were dropped."""
        key = await self.authenticate(credential, scope=Scope.GENERATE)
        form.name(user_id, what="user_id")

        async def withdraw() -> int:
            digests = await self._stores.hash_key.digests()
            return await self._stores.erasure.withdraw(digests.owner(key.organisation, user_id))

        return await self._stores.patience("withdrawing consent", withdraw, give_up_seconds=give_up_seconds)

    async def sample(self, credential: str | None, sample_id: str, *, give_up_seconds: float) -> SampleState:
        """Where a sample is, as far as this key may know. Raises NotFound."""
        key = await self.authenticate(credential, scope=Scope.GENERATE)
        return await self._stores.samples.get(key, sample_id, give_up_seconds=give_up_seconds)

    async def _close(
        self,
        opened: Opened,
        made: Sequence[Made],
        outcome: str,
        num_response_tokens: int,
        verdict: "asyncio.Future[Verdict]",
    ) -> None:
        """Account, receipts, record; and the answers themselves where their prompt may be learned from."""
        stores = self._stores
        if opened.reservation is not None:
            await stores.meter.settle(opened.reservation, num_tokens=len(opened.token_ids) + num_response_tokens)
        decided: Verdict | None = None
        try:
            await stores.patience(
                "completing receipts", partial(self._complete, made), give_up_seconds=AFTERWARDS_SECONDS
            )
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(VERDICT_SECONDS):
                    decided = await asyncio.shield(verdict)
            opened.decision.write(
                outcome=outcome,
                num_response_tokens=num_response_tokens,
                versions=sorted({span.version for each in made for span in each.spans}),
                verdict=decided or "undecided",
            )
        if decided in STORED:
            await stores.patience(
                "keeping answers", partial(self._keep, opened, made), give_up_seconds=AFTERWARDS_SECONDS
            )

    async def _complete(self, made: Sequence[Made]) -> None:
        for each in made:
            await self._stores.receipts.complete(each.sample_id, versions=each.spans, num_tokens=each.num_tokens)

    async def _keep(self, opened: Opened, made: Sequence[Made]) -> None:
        for each in made:
            if each.is_complete:
                await self._stores.answers.keep(
                    each.sample_id,
                    opened.caller,
                    prompt=opened.turns,
                    response="".join(each.texts),
                    version=max((span.version for span in each.spans), default=0),
                )


def _told(opened: Opened, verdict: Verdict | OnlineRLHFError) -> Given | OnlineRLHFError:
    if isinstance(verdict, OnlineRLHFError):
        opened.decision.refused(verdict)
        return verdict
    opened.decision.write(outcome="received", verdict=verdict)
    return opened.given


def _seed(question: Question, number: int) -> int | None:
    """Answers to one question differ, and together they are repeatable."""
    return None if question.spec.seed is None else (question.spec.seed + number) % 2**63


def _offer(opened: Opened, traceparent: str) -> Offer:
    question = opened.question
    return Offer(
        caller=opened.caller,
        sample_id=opened.claim.sample_ids[0],
        turns=opened.turns,
        token_ids=opened.token_ids,
        claim=question.consent,
        use_case=question.use_case,
        is_raw=not question.turns,
        traceparent=traceparent,
    )
