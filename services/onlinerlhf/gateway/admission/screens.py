"""What a prompt must pass to be learned from, in order, before the pool is asked. Whether it is answered was decided
before, by `form`, the key and the limits, and nothing here changes that.

raw -> consent -> tokens -> personal data and secrets -> evaluation prompts -> fingerprint, split, use case

Each screen says why not with a Verdict; lack of consent is raised. Whoever adds one adds a line to `pass_all`, and a
verdict. What must be exact over all gateways is no screen but a check of the admit script.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from onlinerlhf.core.samples import ConsentProof, Prompt
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.access.identity import Digests
from onlinerlhf.gateway.admission import use_cases
from onlinerlhf.gateway.admission.caps import cap_score
from onlinerlhf.gateway.admission.consent import Notices, TrainablePrompt, admit, prove
from onlinerlhf.gateway.admission.decontamination import EvaluationPrompts
from onlinerlhf.gateway.admission.dedup import fingerprint
from onlinerlhf.gateway.admission.normalise import comparable
from onlinerlhf.gateway.admission.offers import Offer, Verdict
from onlinerlhf.gateway.admission.splits import Splits
from onlinerlhf.gateway.admission.templates import Templates
from onlinerlhf.gateway.pii.policy import Policy, apply
from onlinerlhf.gateway.pii.scanner import Scanner, ScreenFailed

INLINE_CHARACTERS: Final = 4_096
"""Up to here the pure screens are faster on the event loop than a hop to a thread."""

Turns = tuple[tuple[str, str], ...]

_PII_SECONDS: Final = metrics.SCREEN_SECONDS.labels(screen="pii")
_READ_SECONDS: Final = metrics.SCREEN_SECONDS.labels(screen="read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the screens go by."""

    notices: Notices
    max_tokens: int
    """Of the rendered prompt; longer ones are kept out, not cut."""
    pii_policy: Policy
    encode: Callable[[Turns], tuple[int, ...]]
    """Renders and tokenises turns anew, where redaction has changed them."""
    splits: Splits
    templates: Templates = field(default_factory=Templates)
    evaluation_prompts: EvaluationPrompts = field(default_factory=EvaluationPrompts)
    screen_seconds: float = 5.0
    """Longest time all screens of a prompt may take; then it is not learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What may be kept of a prompt."""

    turns: Turns
    token_ids: tuple[int, ...]
    pii_kinds: tuple[str, ...] = ()


class Screens:
    """The screens of one gateway."""

    def __init__(self, scanner: Scanner, rules: Rules) -> None:
        self._scanner = scanner
        self._rules = rules

    def prove(self, offer: Offer, *, now: float) -> ConsentProof:
        """Its proof of consent, as far as a gateway can tell. Raises ConsentMissing."""
        notices = self._rules.notices
        return prove(
            offer.claim, offer.caller.key, notice_versions=notices.versions, notice_seconds=notices.seconds, now=now
        )

    async def pass_all(self, offer: Offer, digests: Digests, *, now: float) -> TrainablePrompt | Verdict:
        """A prompt that may be learned from, or why not. Raises ConsentMissing, and TimeoutError in good time."""
        if offer.is_raw:
            return Verdict.RAW_PROMPT
        proof = self.prove(offer, now=now)
        if len(offer.token_ids) > self._rules.max_tokens:
            return Verdict.TOO_MANY_TOKENS
        async with asyncio.timeout(self._rules.screen_seconds):
            kept = await self._without_personal_data(offer)
            if isinstance(kept, Verdict):
                return kept
            is_short = sum(len(text) for _, text in kept.turns) <= INLINE_CHARACTERS
            if is_short:
                return self._read(offer, kept, proof, digests, now)
            return await asyncio.to_thread(self._read, offer, kept, proof, digests, now)

    async def _without_personal_data(self, offer: Offer) -> _Kept | Verdict:
        policy = self._rules.pii_policy
        turns: list[tuple[str, str]] = []
        kinds: set[str] = set()
        with _PII_SECONDS.time():
            for role, text in offer.turns:
                try:
                    findings = await self._scanner.scan(text)
                except ScreenFailed:
                    return Verdict.SCREEN_FAILED
                if not findings:
                    turns.append((role, text))
                    continue
                screened = apply(text, findings, policy)
                kinds.update(screened.kinds)
                for kind in screened.kinds:
                    metrics.FINDINGS.labels(kind=kind.value).inc()
                if screened.is_dropped:
                    return Verdict.PII
                turns.append((role, screened.text))
        if tuple(turns) == offer.turns:
            return _Kept(turns=offer.turns, token_ids=offer.token_ids, pii_kinds=tuple(sorted(kinds)))
        redacted = tuple(turns)
        token_ids = await asyncio.to_thread(self._rules.encode, redacted)
        if len(token_ids) > self._rules.max_tokens:
            return Verdict.TOO_MANY_TOKENS
        return _Kept(turns=redacted, token_ids=token_ids, pii_kinds=tuple(sorted(kinds)))

    def _read(
        self, offer: Offer, kept: _Kept, proof: ConsentProof, digests: Digests, now: float
    ) -> TrainablePrompt | Verdict:
        with _READ_SECONDS.time():
            rules = self._rules
            texts = [comparable(text) for role, text in kept.turns if role == "user"]
            if any(rules.evaluation_prompts.hold(text) for text in texts):
                return Verdict.CONTAMINATED
            prefixes = fingerprint([rules.templates.content(text) for text in texts], digests.key)
            use_case, source = use_cases.tag(kept.turns, offer.use_case)
            prompt = Prompt(
                sample_id=offer.sample_id,
                prompt_id=offer.sample_id,
                owner=offer.caller.owner,
                tenant=offer.caller.tenant,
                consent=proof,
                text=shown(kept.turns),
                token_ids=kept.token_ids,
                epoch=0,
                admitted_at_seconds=now,
                use_case=use_case,
                use_case_source=source,
                traceparent=offer.traceparent,
                pii_kinds=kept.pii_kinds,
            )
            return admit(
                prompt,
                offer.caller,
                fingerprint=prefixes,
                cap_score=cap_score(prefixes, digests),
                split=rules.splits.of(digests, offer.caller.tenant),
                notices=rules.notices,
                now=now,
            )


def shown(turns: Sequence[tuple[str, str]]) -> str:
    """Text for people to read: of a plain prompt its own, of a conversation a paragraph a turn."""
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in turns)
