"""The checks of a request's own, in order, each typed and counted: form -> API key -> tokens -> limits and receipt.

None of them looks at what others sent, so whoever is refused here learns nothing about anybody else.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from onlinerlhf.core.errors import ConfigError, InvalidInput, OnlineRLHFError, Unavailable
from onlinerlhf.gateway.access.authentication import Authenticator
from onlinerlhf.gateway.access.callers import ApiKey, Caller, KeyClass, Scope
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.access.impatience import Impatience
from onlinerlhf.gateway.access.limits import Charge, Meter, Reservation
from onlinerlhf.gateway.requests import form
from onlinerlhf.gateway.requests.decisions import Decision
from onlinerlhf.gateway.requests.questions import Given, Question
from onlinerlhf.gateway.requests.receipts import Claim, ReceiptKind, Receipts, WantedReceipt, new_sample_ids
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.runtime.redis import Patience

INLINE_BYTES: Final = 4_096
"""Up to here tokenising is quicker on the event loop than a hop to a thread."""
LOOK_UP_SECONDS: Final = 0.5
"""How long an answer may be held up by Redis; then it is refused, or given from what is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningLimits:
    """Bounds of what may be asked."""

    form: form.FormLimits
    max_context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A request that has passed every check of its own."""

    caller: Caller
    question: Question
    turns: tuple[tuple[str, str], ...]
    token_ids: tuple[int, ...]
    claim: Claim
    decision: Decision
    reservation: Reservation | None = None
    """To be settled when the answer ends; a submission is charged when it is let in."""

    @property
    def given(self) -> Given:
        """The receipt."""
        return Given(
            sample_id=self.claim.sample_ids[0], replayed=self.claim.replayed, num_prompt_tokens=len(self.token_ids)
        )


@dataclass(slots=True, kw_only=True)
class _Opening:
    """A submission on its way through the checks."""

    question: Question
    decision: Decision
    error: OnlineRLHFError | None = None
    turns: tuple[tuple[str, str], ...] = ()
    token_ids: tuple[int, ...] = ()
    caller: Caller | None = None
    claim: Claim | None = None

    @property
    def known_caller(self) -> Caller:
        """After its key was found good."""
        if self.caller is None:
            raise AssertionError("a receipt before the key")
        return self.caller

    def opened(self) -> Opened:
        """After the last check."""
        if self.claim is None:
            raise AssertionError("opened before its receipt")
        self.decision.opened(self.known_caller, self.claim.sample_ids, num_prompt_tokens=len(self.token_ids))
        return Opened(
            caller=self.known_caller,
            question=self.question,
            turns=self.turns,
            token_ids=self.token_ids,
            claim=self.claim,
            decision=self.decision,
        )


class Opener:
    """Opens requests."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        hash_key: HashKey,
        meter: Meter,
        receipts: Receipts,
        tokenizer: PromptTokenizer,
        patience: Patience,
        limits: OpeningLimits,
    ) -> None:
        self._authenticator = authenticator
        self._hash_key = hash_key
        self._meter = meter
        self._receipts = receipts
        self._tokenizer = tokenizer
        self._patience = patience
        self._limits = limits
        self._impatience = Impatience()

    async def open(
        self, credential: str | None, question: Question, *, kind: ReceiptKind, num_response_tokens: int
    ) -> Opened:
        """Raises InvalidInput, Unauthenticated, PermissionDenied, LimitReached, IdempotencyConflict or Unavailable."""
        decision = Decision(kind=kind)
        try:
            turns = form.check(question, self._limits.form)
            key = await self._authenticator.authenticate(credential, scope=Scope.GENERATE)
            decision.key(key)
            caller = await self._caller(key, question.user_id)
            token_ids = await self._encode(question, turns, num_response_tokens)
            num_tokens = len(token_ids) + num_response_tokens
            claim, reservation = await self._claim(caller, question, kind, num_tokens=num_tokens)
        except OnlineRLHFError as error:
            decision.refused(error)
            raise
        decision.opened(caller, claim.sample_ids, num_prompt_tokens=len(token_ids))
        return Opened(
            caller=caller,
            question=question,
            turns=turns,
            token_ids=token_ids,
            claim=claim,
            reservation=reservation,
            decision=decision,
        )

    async def open_prompts(
        self, credential: str | None, questions: Sequence[Question]
    ) -> list[Opened | OnlineRLHFError]:
        """Open many submissions, which costs less a piece: each with what `open` would return or raise."""
        outcomes = [self._checked(question) for question in questions]
        try:
            key = await self._authenticator.authenticate(credential, scope=Scope.GENERATE)
            digests = await self._digests()
            await self._encode_all(outcomes)
            for each in outcomes:
                if each.error is None:
                    each.decision.key(key)
                    each.caller = _caller(digests, key, each.question.user_id)
            await self._claim_all([each for each in outcomes if each.error is None])
        except OnlineRLHFError as error:
            for each in outcomes:
                each.error = each.error or error
        return [self._closed(each) for each in outcomes]

    def _checked(self, question: Question) -> "_Opening":
        opening = _Opening(question=question, decision=Decision(kind=ReceiptKind.PROMPT))
        try:
            opening.turns = form.check(question, self._limits.form)
        except OnlineRLHFError as error:
            opening.error = error
        return opening

    async def _encode_all(self, openings: Sequence["_Opening"]) -> None:
        """In one thread, which others may use the interpreter beside."""
        plain = [each for each in openings if each.error is None and is_plain(each.turns)]
        texts = [each.turns[0][1] for each in plain]
        if texts:
            encode = partial(self._tokenizer.encode_prompts, texts)
            # Of several, even short ones are worth a hop: the tokenizer leaves the interpreter to others.
            is_short = len(plain) == 1 and plain[0].question.num_bytes <= INLINE_BYTES
            for each, token_ids in zip(plain, encode() if is_short else await asyncio.to_thread(encode), strict=True):
                each.token_ids = tuple(token_ids)
        for each in openings:
            if each.error is not None:
                continue
            try:
                each.token_ids = each.token_ids or await self._encode(each.question, each.turns, 0)
                self._check_room(each.token_ids, self._limits.max_context_tokens)
            except OnlineRLHFError as error:
                each.error = error

    async def _claim_all(self, openings: Sequence["_Opening"]) -> None:
        """All accounts and receipts in one trip."""
        if not openings:
            return
        receipts, charges = [], []
        for each in openings:
            fresh = new_sample_ids(1)
            caller, question = each.known_caller, each.question
            receipts.append(WantedReceipt(caller, question.idempotency_key, question.body, ReceiptKind.PROMPT, fresh))
            charges.append(Charge(caller, len(each.token_ids), fresh[0]))
        claim = partial(self._receipts.claim_all, receipts)
        asking = self._patience("receipts", lambda: self._impatience(claim), give_up_seconds=LOOK_UP_SECONDS)
        claiming = asyncio.create_task(asking, name="claim")
        try:
            refusals = await self._meter.charge_all(charges)
        finally:
            (claimed,) = await asyncio.gather(claiming, return_exceptions=True)
        if isinstance(claimed, BaseException):
            raise claimed
        for each, refusal, outcome in zip(openings, refusals, claimed, strict=True):
            if refusal is not None:
                each.error = refusal
            elif isinstance(outcome, Claim):
                each.claim = outcome
            else:
                each.error = outcome

    def _closed(self, opening: "_Opening") -> Opened | OnlineRLHFError:
        if opening.error is not None:
            opening.decision.refused(opening.error)
            return opening.error
        return opening.opened()

    async def _digests(self) -> Digests:
        return await self._patience("the hash key", self._hash_key.digests, give_up_seconds=LOOK_UP_SECONDS)

    async def _caller(self, key: ApiKey, user_id: str) -> Caller:
        return _caller(await self._digests(), key, user_id)

    def _check_room(self, token_ids: Sequence[int], room: int) -> None:
        if len(token_ids) > room:
            message = f"the prompt has {len(token_ids)} tokens; with this max_tokens at most {max(room, 0)} are taken"
            raise InvalidInput(message, reason="too_many_tokens")

    async def _encode(
        self, question: Question, turns: Sequence[tuple[str, str]], num_response_tokens: int
    ) -> tuple[int, ...]:
        encode = partial(self._token_ids, question, turns)
        token_ids = encode() if question.num_bytes <= INLINE_BYTES else await asyncio.to_thread(encode)
        self._check_room(token_ids, self._limits.max_context_tokens - num_response_tokens // question.num_answers)
        return token_ids

    def _token_ids(self, question: Question, turns: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        if question.raw_token_ids is not None:
            size = self._tokenizer.vocab_size
            if not all(0 <= token_id < size for token_id in question.raw_token_ids):
                raise InvalidInput(f"a token id is not below {size}", reason="bad_token_id")
            return question.raw_token_ids
        if question.raw_text is not None:
            return tuple(self._tokenizer.encode_text(turns[0][1]))
        return encode_turns(self._tokenizer, turns)

    async def _claim(
        self, caller: Caller, question: Question, kind: ReceiptKind, *, num_tokens: int
    ) -> tuple[Claim, Reservation]:
        """The account and the receipt in one trip."""
        fresh = new_sample_ids(question.num_answers)
        claim = partial(
            self._receipts.claim,
            caller,
            idempotency_key=question.idempotency_key,
            body=question.body,
            num_samples=question.num_answers,
            kind=kind,
            sample_ids=fresh,
        )
        asking = self._patience("a receipt", lambda: self._impatience(claim), give_up_seconds=LOOK_UP_SECONDS)
        claiming = asyncio.create_task(asking, name="claim")
        try:
            reserved = await self._meter.reserve(caller, num_tokens=num_tokens, request_id=fresh[0])
        finally:
            # It goes by the same trip, so there is nothing to wait for, and an error of its own is not lost.
            (claimed,) = await asyncio.gather(claiming, return_exceptions=True)
        if isinstance(claimed, Unavailable) and caller.key.key_class is KeyClass.PRODUCTION:
            # Answered from what is known; nobody will be able to ask about this answer.
            claimed = Claim(sample_ids=fresh, replayed=False)
        if isinstance(claimed, BaseException):
            await self._meter.settle(reserved, num_tokens=0)
            raise claimed
        return claimed, reserved


def _caller(digests: Digests, key: ApiKey, user_id: str) -> Caller:
    owner = digests.owner(key.organisation, user_id)
    return Caller(key=key, owner=owner, tenant=digests.tenant(key.organisation, owner))


def is_plain(turns: Sequence[tuple[str, str]]) -> bool:
    """A prompt without a conversation around it."""
    return len(turns) == 1 and turns[0][0] == "user"


def encode_turns(tokenizer: PromptTokenizer, turns: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """Token ids of a conversation as the policy reads it. Control tokens spelled in a text are text."""
    if is_plain(turns):
        return tuple(tokenizer.encode_prompt(turns[0][1]))
    try:
        return tuple(tokenizer.encode_chat(turns))
    except ConfigError:
        message = "the model's chat template does not take these roles in this order"
        raise InvalidInput(message, reason="bad_messages") from None
