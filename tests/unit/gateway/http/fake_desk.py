"""A desk without Redis, keys in a set, and a policy that knows one answer: enough of the gateway for its HTTP front."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from onlinerlhf.core.errors import InvalidInput, NotFound, OnlineRLHFError, Unauthenticated
from onlinerlhf.core.samples import FinishReason, VersionSpan
from onlinerlhf.gateway.access.callers import ApiKey, KeyClass, Scope
from onlinerlhf.gateway.http.settings import FrontSettings
from onlinerlhf.gateway.kept.judgements import Judgement, samples_of
from onlinerlhf.gateway.requests import form
from onlinerlhf.gateway.requests.answering import Answering, Made
from onlinerlhf.gateway.requests.lane import AnswerEnd, AnswerTokens, PromptLogprobs, TopLogprobs
from onlinerlhf.gateway.requests.questions import Given, Question
from onlinerlhf.models.tokenizer import PromptTokenizer

KEY = "a-good-key"
SETTINGS = FrontSettings(
    model_name="policy",
    default_max_tokens=16,
    answer_seconds=5.0,
    feedback_seconds=5.0,
    max_body_bytes=65_536,
    body_seconds=0.5,
)
TEMPLATE = "{% for message in messages %}<user>{{ message['content'] }}<eos>{% endfor %}<bot>"
LIMITS = form.FormLimits(max_prompt_bytes=4_096, max_turns=16, max_answers=8, max_response_tokens=64)
API_KEY = ApiKey(
    key_id="k",
    name="test",
    key_class=KeyClass.PLAYGROUND,
    organisation="",
    scopes=frozenset(Scope),
    created_at_seconds=0.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    feedback_id: str
    replayed: bool


class FakeCall:
    """One answer: H, then i, by versions 3 and 4. Its second token waits for `goes_on`."""

    def __init__(self, desk: "FakeDesk", question: Question, prompt_token_ids: Sequence[int]) -> None:
        self._desk = desk
        self._question = question
        self._prompt = tuple(prompt_token_ids)
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    async def __aiter__(self) -> AsyncIterator[AnswerTokens | AnswerEnd]:
        spec = self._question.spec
        pieces = self._desk.answer[: spec.max_tokens]
        for number, (token_id, text) in enumerate(pieces):
            if number == 1:
                await self._desk.goes_on.wait()
            if number == 1 and self._desk.breaks_with is not None:
                raise self._desk.breaks_with
            yield AnswerTokens(
                text=text,
                token_ids=(token_id,),
                logprobs=(-0.5 / (number + 1),),
                top_logprobs=(self._top(token_id, -0.5 / (number + 1)),) if spec.num_top_logprobs else (),
                prompt_logprobs=self._prompt_logprobs() if number == 0 and spec.with_prompt_logprobs else None,
            )
        is_whole = len(pieces) == len(self._desk.answer)
        yield AnswerEnd(
            finish_reason=FinishReason.EOS if is_whole else FinishReason.LENGTH,
            version_spans=tuple(VersionSpan(version=3 + number, num_tokens=1) for number in range(len(pieces))),
            num_tokens=len(pieces),
        )

    def _prompt_logprobs(self) -> PromptLogprobs:
        num_tokens = len(self._prompt)
        logprobs = (0.0, *(-float(number) for number in range(1, num_tokens)))
        tops = [TopLogprobs(), *(self._top(self._prompt[n], logprobs[n]) for n in range(1, num_tokens))]
        return PromptLogprobs(logprobs=logprobs, top=tuple(tops) if self._question.spec.num_top_logprobs else ())

    def _top(self, token_id: int, logprob: float) -> TopLogprobs:
        """The token itself, and the one after it, which is less likely by 1."""
        count = self._question.spec.num_top_logprobs
        return TopLogprobs(token_ids=(token_id, token_id + 1)[:count], logprobs=(logprob, logprob - 1.0)[:count])


@dataclass(kw_only=True)
class FakeDesk:
    tokenizer: PromptTokenizer
    questions: list[Question] = field(default_factory=list)
    judgements: list[tuple[Judgement, str]] = field(default_factory=list)
    calls: list[FakeCall] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    """Of the answers whose block was left."""
    refuses_with: Exception | None = None
    breaks_with: OnlineRLHFError | None = None
    """After the first token."""
    answer: list[tuple[int, str]] = field(default_factory=list)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answer = self.answer or [(self.tokenizer.encode_text(letter)[0], letter) for letter in "Hi"]
        self.goes_on.set()

    async def authenticate(self, credential: str | None, *, scope: Scope) -> ApiKey:
        if credential != KEY:
            raise Unauthenticated("a valid API key is required")
        return API_KEY

    async def ask(self, credential: str | None, question: Question, *, give_up_seconds: float) -> Answering:
        turns = form.check(question, LIMITS)
        await self.authenticate(credential, scope=Scope.GENERATE)
        if self.refuses_with is not None:
            raise self.refuses_with
        token_ids = self._encode(question, turns)
        self.questions.append(question)
        number = len(self.questions)
        sample_ids = [f"sample-{number}-{index}" for index in range(question.num_answers)]
        calls = [FakeCall(self, question, token_ids) for _ in sample_ids]
        self.calls += calls
        given = Given(
            sample_id=sample_ids[0],
            replayed=question.idempotency_key == "again",
            num_prompt_tokens=len(token_ids),
        )

        def on_end(made: Sequence[Made], outcome: str) -> None:
            self.outcomes.append(outcome)

        # The calls of a real desk are gRPC's; an answering takes them apart in the same way.
        several = cast("Sequence[Any]", calls)
        return Answering(several, sample_ids, given=given, prompt_token_ids=token_ids, on_end=on_end)

    async def give_feedback(
        self, credential: str | None, judgement: Judgement, *, idempotency_key: str, give_up_seconds: float
    ) -> Stored:
        await self.authenticate(credential, scope=Scope.FEEDBACK)
        if not all(each.startswith("sample-") for each in samples_of(judgement)):
            raise NotFound("this key has received no sample with this id")
        self.judgements.append((judgement, idempotency_key))
        return Stored(feedback_id=f"feedback-{len(self.judgements)}", replayed=idempotency_key == "again")

    def _encode(self, question: Question, turns: Sequence[tuple[str, str]]) -> list[int]:
        if question.raw_token_ids is not None:
            if max(question.raw_token_ids) >= self.tokenizer.vocab_size:
                raise InvalidInput("a token id is out of range", reason="bad_token_id")
            return list(question.raw_token_ids)
        if question.raw_text is not None:
            return self.tokenizer.encode_text(turns[0][1])
        return self.tokenizer.encode_chat(turns)


def make_byte_tokenizer(directory: Path) -> PromptTokenizer:
    """One token a byte, and <eos>, <user> and <bot>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, "<eos>", "<user>", "<bot>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>", "<user>", "<bot>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"eos_token": "<eos>", "pad_token": "<eos>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return PromptTokenizer.load(directory)
