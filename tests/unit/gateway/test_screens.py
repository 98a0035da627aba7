import asyncio
from dataclasses import replace
from typing import Any

import pytest

from onlinerlhf.core.errors import ConsentMissing
from onlinerlhf.core.samples import UseCase
from onlinerlhf.gateway.access.callers import KeyClass
from onlinerlhf.gateway.admission.consent import ConsentClaim, Notices, TrainablePrompt
from onlinerlhf.gateway.admission.decontamination import EvaluationPrompts
from onlinerlhf.gateway.admission.offers import Offer, Verdict
from onlinerlhf.gateway.admission.screens import Rules, Screens, Turns, shown
from onlinerlhf.gateway.admission.splits import Split, Splits
from onlinerlhf.gateway.admission.templates import Templates
from onlinerlhf.gateway.pii.findings import Finding, Kind
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.gateway.pii.scanner import ScreenFailed
from trainables import DIGESTS, a_caller

NOW = 1_800_000_000.0


class WordScanner:
    """Finds one word, or fails."""

    def __init__(self, word: str = "secret", *, fails: bool = False) -> None:
        self._word = word
        self._fails = fails
        self.scanned: list[str] = []

    async def scan(self, text: str) -> list[Finding]:
        if self._fails:
            raise ScreenFailed("killed")
        self.scanned.append(text)
        start = text.find(self._word)
        return [] if start < 0 else [Finding(kind=Kind.EMAIL, start=start, end=start + len(self._word))]

    async def close(self) -> None:
        """Nothing."""


def by_words(turns: Turns) -> tuple[int, ...]:
    return tuple(len(word) for _, text in turns for word in text.split())


def rules(**changes: Any) -> Rules:
    base = Rules(
        notices=Notices(versions=frozenset({"1"}), seconds=3600.0),
        max_tokens=6,
        pii_policy=Policy.DROP,
        encode=by_words,
        splits=Splits(salt="1", valid_share=0.0, test_share=0.0),
    )
    return replace(base, **changes)


def offer(*user_turns: str, **changes: Any) -> Offer:
    turns = tuple(("user", text) for text in user_turns or ("Name three fruits.",))
    base = Offer(
        caller=a_caller("ada", organisation="acme"),
        sample_id="s1",
        turns=turns,
        token_ids=(1, 2, 3),
        claim=ConsentClaim(notice_version="1", shown_at_seconds=NOW - 5),
        traceparent="00-1-2-01",
    )
    return replace(base, **changes)


async def judged(what: Offer, with_rules: Rules, scanner: WordScanner) -> TrainablePrompt | Verdict:
    return await Screens(scanner, with_rules).pass_all(what, DIGESTS, now=NOW)


async def passed(what: Offer, with_rules: Rules | None = None, scanner: WordScanner | None = None) -> TrainablePrompt:
    outcome = await judged(what, with_rules or rules(), scanner or WordScanner())
    assert isinstance(outcome, TrainablePrompt)
    return outcome


async def verdict(what: Offer, with_rules: Rules | None = None, scanner: WordScanner | None = None) -> Verdict:
    outcome = await judged(what, with_rules or rules(), scanner or WordScanner())
    assert isinstance(outcome, Verdict)
    return outcome


async def test_what_passes_carries_its_owner_its_proof_and_where_it_came_from() -> None:
    trainable = await passed(offer("Who built it?"))
    prompt, caller = trainable.prompt, a_caller("ada", organisation="acme")
    assert (prompt.sample_id, prompt.prompt_id, prompt.epoch) == ("s1", "s1", 0)
    assert (prompt.owner, prompt.tenant) == (caller.owner, caller.tenant)
    assert (prompt.consent.notice_version, prompt.consent.shown_at_seconds) == ("1", NOW - 5)
    assert (prompt.text, prompt.token_ids) == ("Who built it?", (1, 2, 3))
    assert (prompt.use_case, prompt.use_case_source) == (UseCase.OPEN_QA, "rules")
    assert (prompt.traceparent, prompt.admitted_at_seconds) == ("00-1-2-01", NOW)
    assert trainable.split is Split.TRAIN
    assert 0 <= trainable.cap_score < 2**52


async def test_a_raw_prompt_is_never_learned_from() -> None:
    assert await verdict(offer(is_raw=True)) is Verdict.RAW_PROMPT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"claim": None}, "no_consent"),
        ({"claim": ConsentClaim(notice_version="1", shown_at_seconds=NOW - 3601)}, "notice_expired"),
        ({"claim": ConsentClaim(notice_version="9", shown_at_seconds=NOW)}, "unknown_notice"),
        ({"caller": a_caller(key_class=KeyClass.PRODUCTION)}, "production_key"),
    ],
)
async def test_without_consent_the_text_is_not_even_looked_at(changes: dict[str, Any], reason: str) -> None:
    scanner = WordScanner()
    with pytest.raises(ConsentMissing) as caught:
        await judged(offer(**changes), rules(), scanner)
    assert caught.value.reason == reason
    assert scanner.scanned == []


async def test_a_prompt_over_the_bound_is_kept_out_and_not_cut() -> None:
    assert await verdict(offer(token_ids=(1,) * 7)) is Verdict.TOO_MANY_TOKENS
    assert len((await passed(offer(token_ids=(1,) * 6))).prompt.token_ids) == 6


async def test_personal_data_drop_the_prompt_whichever_turn_they_are_in() -> None:
    assert await verdict(offer("my secret is out")) is Verdict.PII
    for role in ("system", "assistant", "user"):
        turns = (("user", "hi"), (role, "a secret"), ("user", "go on"))
        assert await verdict(offer(turns=turns)) is Verdict.PII


async def test_redaction_changes_the_text_and_its_tokens_together() -> None:
    prompt = (await passed(offer("my secret is out"), rules(pii_policy=Policy.REDACT))).prompt
    assert prompt.text == "my [EMAIL] is out"
    assert prompt.token_ids == (2, 7, 2, 3)


async def test_texts_that_redaction_makes_alike_are_duplicates() -> None:
    redacting = rules(pii_policy=Policy.REDACT)
    one = await passed(offer("call ann@x"), redacting, WordScanner("ann@x"))
    two = await passed(offer("call bob@y"), redacting, WordScanner("bob@y"))
    assert one.fingerprint == two.fingerprint


async def test_a_prompt_that_redaction_makes_too_long_is_kept_out() -> None:
    redacting = rules(pii_policy=Policy.REDACT, encode=lambda turns: (1,) * 7)
    assert await verdict(offer("my secret is out"), redacting) is Verdict.TOO_MANY_TOKENS


async def test_under_the_policy_tag_the_text_stays() -> None:
    prompt = (await passed(offer("my secret is out"), rules(pii_policy=Policy.TAG))).prompt
    assert (prompt.text, prompt.token_ids) == ("my secret is out", (1, 2, 3))


async def test_a_scanner_that_failed_means_not_learned_from() -> None:
    assert await verdict(offer(), scanner=WordScanner(fails=True)) is Verdict.SCREEN_FAILED


async def test_screens_that_take_too_long_are_given_up() -> None:
    class Slow(WordScanner):
        async def scan(self, text: str) -> list[Finding]:
            await asyncio.sleep(3600)
            return []

    with pytest.raises(TimeoutError):
        await judged(offer(), rules(screen_seconds=0.01), Slow())


async def test_an_evaluation_prompt_is_kept_out_in_whichever_turn() -> None:
    index = rules(evaluation_prompts=EvaluationPrompts.of(["Who built it?"]))
    assert await verdict(offer("WHO built it"), index) is Verdict.CONTAMINATED
    assert await verdict(offer("hello", "Who built it?"), index) is Verdict.CONTAMINATED
    assert (await passed(offer("Who broke it?"), index)).prompt.text == "Who broke it?"


async def test_the_system_text_and_templates_are_no_part_of_what_is_compared() -> None:
    bare = await passed(offer("Name three fruits."))
    turns = (("system", "Be kind. " * 100), ("user", "Name three fruits."))
    assert (await passed(offer(turns=turns))).fingerprint == bare.fingerprint
    with_template = rules(templates=Templates.of(["Question: {} Answer:"]))
    assert (await passed(offer("Question: name THREE fruits. Answer:"), with_template)).fingerprint == bare.fingerprint


async def test_what_the_assistant_said_is_no_part_of_what_is_compared_and_stays_in_the_text() -> None:
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"))
    trainable = await passed(offer(turns=turns))
    assert trainable.fingerprint == (await passed(offer("a", "c"))).fingerprint
    assert trainable.prompt.text == shown(turns) == "user: a\n\nassistant: b\n\nuser: c"


async def test_what_the_cap_goes_by_depends_on_the_content_alone() -> None:
    one = await passed(offer("Name three."))
    two = await passed(offer("name  THREE.", sample_id="s2", caller=a_caller("bob")))
    assert one.cap_score == two.cap_score
    assert one.cap_score != (await passed(offer("Name four."))).cap_score


async def test_held_out_tenants_prompts_carry_their_split() -> None:
    trainable = await passed(offer(), rules(splits=Splits(salt="1", valid_share=0.0, test_share=0.999999)))
    assert trainable.split is Split.TEST


async def test_a_long_prompt_is_read_off_the_event_loop_with_the_same_result() -> None:
    text = "word " * 2000
    assert (await passed(offer(text))).fingerprint.whole.num_characters == 9999
