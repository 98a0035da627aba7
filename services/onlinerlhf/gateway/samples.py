"""Where a sample is, as clients see it."""

from dataclasses import dataclass

from onlinerlhf.core.samples import Outcome
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleState:
    """A ledger state, taken apart."""

    state: str
    """pool, prompts, rollouts, scored, trained or dropped."""
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
    """Asks the ledger."""

    def __init__(self, ledger: Ledger, patience: Patience) -> None:
        self._ledger = ledger
        self._patience = patience

    async def get(self, sample_id: str, *, give_up_seconds: float) -> SampleState | None:
        """None where no such sample was ever admitted."""
        state = await self._patience(
            "looking up a sample", lambda: self._ledger.state(sample_id), give_up_seconds=give_up_seconds
        )
        return None if state is None else parse_state(state)
