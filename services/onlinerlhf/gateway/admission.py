"""From an offer to a receipt: screens, then the pool.

to_answer -> to_learn -> Pool.admit -> receipt
    └───────────┴────────────┴-> a typed refusal
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from redis.exceptions import RedisError

from onlinerlhf.core.errors import OnlineRLHFError, Unavailable
from onlinerlhf.core.samples import Prompt
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.normalise import keyed_digest, text_digest
from onlinerlhf.gateway.pool import NewPrompt, Pool, Receipt, new_sample_id
from onlinerlhf.gateway.screens import Candidate, Screens, pass_all
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.statuses import status_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAdmitted:
    """Answered, and not learned from, for this reason."""

    error: OnlineRLHFError


class Admissions:
    """Decides what is answered and what is learned from."""

    def __init__(self, pool: Pool, screens: Screens, patience: Patience, *, on_admitted: asyncio.Event) -> None:
        self._pool = pool
        self._screens = screens
        self._patience = patience
        self._on_admitted = on_admitted

    async def screen(self, candidate: Candidate) -> Candidate:
        """The candidate with text and tokens, or the first screen's refusal. Off the event loop."""
        return await asyncio.to_thread(pass_all, candidate, self._screens.to_answer)

    async def submit(self, candidate: Candidate, *, give_up_seconds: float) -> Receipt:
        """Screen and admit; the refusal is raised."""
        with metrics.ADMIT_SECONDS.time():
            try:
                receipt = await self._admit(await self.screen(candidate), give_up_seconds=give_up_seconds)
            except OnlineRLHFError as error:
                metrics.PROMPTS.labels(verdict="refused", reason=status_of(error)[1]).inc()
                raise
        metrics.PROMPTS.labels(verdict="replayed" if receipt.replayed else "admitted", reason="").inc()
        return receipt

    async def offer(self, screened: Candidate, *, give_up_seconds: float) -> Receipt | NotAdmitted:
        """Admit what is being answered anyway: a refusal is a value, and the wait for Redis is short."""
        try:
            async with asyncio.timeout(give_up_seconds):
                receipt = await self._admit(screened, give_up_seconds=give_up_seconds)
        except TimeoutError:
            return self._not_admitted(Unavailable(f"admission was not confirmed within {give_up_seconds} s"))
        except OnlineRLHFError as error:
            return self._not_admitted(error)
        except RedisError as error:
            # A reply that no waiting mends is the platform's trouble, not the user's: the answer is given.
            log.exception("admission failed", extra={"error": type(error).__name__})
            return self._not_admitted(Unavailable("admission failed"))
        metrics.PROMPTS.labels(verdict="replayed" if receipt.replayed else "admitted", reason="").inc()
        return receipt

    def _not_admitted(self, error: OnlineRLHFError) -> NotAdmitted:
        metrics.PROMPTS.labels(verdict="refused", reason=status_of(error)[1]).inc()
        return NotAdmitted(error=error)

    async def _admit(self, screened: Candidate, *, give_up_seconds: float) -> Receipt:
        candidate = await asyncio.to_thread(pass_all, screened, self._screens.to_learn)
        started = time.monotonic()
        hash_key = await self._patience("the hash key", self._pool.hash_key, give_up_seconds=give_up_seconds)
        entry = await asyncio.to_thread(_new_prompt, candidate, hash_key)
        receipt = await self._patience(
            "admitting a prompt",
            lambda: self._pool.admit(entry),
            give_up_seconds=max(give_up_seconds - (time.monotonic() - started), 0.0),
        )
        if not receipt.replayed:
            self._on_admitted.set()
        return receipt


def _new_prompt(candidate: Candidate, hash_key: bytes) -> NewPrompt:
    sample_id = new_sample_id()
    user = candidate.user_id.encode("ascii")
    return NewPrompt(
        prompt=Prompt(
            sample_id=sample_id,
            prompt_id=sample_id,
            user_id=candidate.user_id,
            text=candidate.text,
            token_ids=candidate.token_ids,
            epoch=0,
            admitted_at_seconds=time.time(),
        ),
        user_digest=keyed_digest(user, hash_key),
        # Within the user: two users may choose the same key.
        idempotency_digest=keyed_digest(user + b"\x00" + candidate.idempotency_key.encode("ascii"), hash_key),
        body_digest=keyed_digest(candidate.raw, hash_key),
        text_digest=text_digest(candidate.text, hash_key),
    )
