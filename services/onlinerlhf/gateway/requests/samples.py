"""Where a sample is, as clients see it."""

from dataclasses import dataclass

from onlinerlhf.core.errors import NotFound
from onlinerlhf.core.samples import Outcome
from onlinerlhf.gateway.access.callers import ApiKey, Scope
from onlinerlhf.gateway.requests.receipts import Receipts
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience

RECEIVED = "received"
"""State of whatever has a receipt; what became of it is for admins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleState:
    """A ledger state, taken apart."""

    state: str
    """received; for admins pool, prompts, rollouts, scored, trained or dropped, where it was admitted."""
    drop_reason: str = ""
    trained_version: int = 0


def parse_state(state: str) -> SampleState:
    """`trained:7` and `dropped:stale` carry more than their first word."""
    word, _, rest = state.partition(":")
    match word:
        case Outcome.TRAINED:
            return SampleState(state=word, trained_version=int(rest or 0))
        case Outcome.DROPPED:
            return SampleState(state=word, drop_reason=rest)
        case _:
            return SampleState(state=word)


class SampleReader:
    """Asks the ledger for admins, as far as their organisation's samples go, and the receipts for everybody else."""

    def __init__(self, ledger: Ledger, receipts: Receipts, patience: Patience) -> None:
        self._ledger = ledger
        self._receipts = receipts
        self._patience = patience

    async def get(self, key: ApiKey, sample_id: str, *, give_up_seconds: float) -> SampleState:
        """Raises NotFound for what this key may not know of, whether it exists or not."""
        look = self._for_admin if Scope.ADMIN in key.scopes else self._for_client
        found = await self._patience(
            "looking up a sample", lambda: look(key, sample_id), give_up_seconds=give_up_seconds
        )
        if found is None:
            raise NotFound("no sample has this id, or this key did not receive it")
        return found

    async def _for_client(self, key: ApiKey, sample_id: str) -> SampleState | None:
        receipt = await self._receipts.received(sample_id)
        return SampleState(state=RECEIVED) if receipt is not None and receipt.key_id == key.key_id else None

    async def _for_admin(self, key: ApiKey, sample_id: str) -> SampleState | None:
        # Further epochs of a prompt, `<prompt>.<epoch>`, share its receipt.
        receipt = await self._receipts.received(sample_id.partition(".")[0])
        if key.organisation and (
            receipt is None or not await self._receipts.is_of_organisation(receipt, key.organisation)
        ):
            return None
        state = await self._ledger.state(sample_id)
        if state is not None:
            return parse_state(state)
        return SampleState(state=RECEIVED) if receipt is not None and receipt.sample_id == sample_id else None
