import math
from dataclasses import replace

import pytest

from onlinerlhf.core.errors import CONSENT_REASONS, ConsentMissing, MalformedRecord
from onlinerlhf.core.samples import ConsentProof
from onlinerlhf.gateway.access.callers import KeyClass
from onlinerlhf.gateway.admission.consent import ConsentClaim, TrainablePrompt, admit, prove
from onlinerlhf.gateway.admission.dedup import fingerprint
from onlinerlhf.gateway.admission.splits import Split
from prompts import a_prompt
from trainables import NOTICES, a_caller, a_key, a_trainable

DAY = 86_400.0
NOW = 1_800_000_000.0


def proof_of(claim: ConsentClaim | None, *, key_class: KeyClass = KeyClass.PLAYGROUND) -> ConsentProof:
    return prove(claim, a_key(key_class=key_class), notice_versions={"1", "2"}, notice_seconds=30 * DAY, now=NOW)


def shown(seconds_ago: float, version: str = "1") -> ConsentClaim:
    return ConsentClaim(notice_version=version, shown_at_seconds=NOW - seconds_ago)


def test_a_playground_key_and_a_notice_shown_lately_are_proof() -> None:
    proof = proof_of(shown(DAY, "2"))
    assert proof == ConsentProof(key_class="playground", notice_version="2", shown_at_seconds=NOW - DAY)
    assert proof_of(shown(30 * DAY)).shown_at_seconds == NOW - 30 * DAY


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (None, "no_consent"),
        (shown(5, "3"), "unknown_notice"),
        (shown(5, ""), "unknown_notice"),
        (shown(30 * DAY + 1), "notice_expired"),
        (shown(NOW), "notice_expired"),
        (shown(2 * NOW), "notice_expired"),
        (shown(-61), "notice_in_future"),
        (shown(-math.inf), "notice_in_future"),
        (ConsentClaim(notice_version="1", shown_at_seconds=math.nan), "notice_in_future"),
    ],
)
def test_anything_less_is_told_by_its_reason(claim: ConsentClaim | None, reason: str) -> None:
    with pytest.raises(ConsentMissing) as caught:
        proof_of(claim)
    assert caught.value.reason == reason
    assert reason in CONSENT_REASONS


@pytest.mark.parametrize("claim", [None, shown(5)])
def test_a_production_key_never_proves_anything(claim: ConsentClaim | None) -> None:
    with pytest.raises(ConsentMissing) as caught:
        proof_of(claim, key_class=KeyClass.PRODUCTION)
    assert caught.value.reason == "production_key"


def test_a_clock_a_minute_ahead_is_forgiven_but_consent_is_never_dated_after_now() -> None:
    assert proof_of(shown(-60)).shown_at_seconds == NOW


def test_only_admit_makes_a_trainable_prompt() -> None:
    made = a_trainable("Name three.", sample_id="s1")
    with pytest.raises(TypeError, match="only admit"):
        TrainablePrompt(
            prompt=made.prompt,
            fingerprint=made.fingerprint,
            cap_score=made.cap_score,
            split=made.split,
            made_by=object(),
        )
    with pytest.raises((TypeError, ValueError)):
        replace(made, split=Split.TEST)  # type: ignore[call-arg]


def test_admit_takes_no_forged_stale_or_borrowed_proof() -> None:
    caller = a_caller("ada")
    good = replace(a_prompt(), owner=caller.owner, tenant=caller.tenant, consent=proof_of(shown(5)))
    parts = {"fingerprint": fingerprint(["x"], b"key"), "cap_score": 1, "split": Split.TRAIN, "notices": NOTICES}
    assert admit(good, caller, now=NOW, **parts).prompt is good  # type: ignore[arg-type]
    for prompt, who, now in (
        (good, caller, NOW + 2 * NOTICES.seconds),
        (good, caller, NOW - DAY),
        (good, a_caller("bob"), NOW),
        (good, a_caller("ada", organisation="acme"), NOW),
        (good, a_caller("ada", key_class=KeyClass.PRODUCTION), NOW),
        (replace(good, consent=replace(good.consent, notice_version="forged")), caller, NOW),
    ):
        with pytest.raises(ConsentMissing):
            admit(prompt, who, now=now, **parts)  # type: ignore[arg-type]


def test_there_is_no_proof_of_a_production_key_to_begin_with() -> None:
    with pytest.raises(MalformedRecord):
        ConsentProof(key_class="production", notice_version="1", shown_at_seconds=1.0)
