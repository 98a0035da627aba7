"""The end of a demo: checkpoint and ledger."""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from onlinerlhf.core.errors import OnlineRLHFError, WaitTimeout
from onlinerlhf.learner.training.progress import Silence
from onlinerlhf.local.learning import audited_counts, checkpoint
from onlinerlhf.runtime.ledger import Ledger, LedgerCounts, count_states

SEVEN = count_states(["prompts"] * 7)
EIGHT = count_states(["prompts"] * 8)


class ScriptedLedger(Ledger):
    """Answers in turn; the last answer stays."""

    def __init__(self, counted: Sequence[LedgerCounts], audited: LedgerCounts) -> None:
        self._counted: Iterator[LedgerCounts] = iter([*counted, *[counted[-1]] * 20])
        self._audited = audited

    async def counts(self) -> LedgerCounts:
        return next(self._counted)

    async def audit(self) -> LedgerCounts:
        return self._audited


class Heard(Silence):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


async def test_the_ledger_is_checked_once_its_samples_rest() -> None:
    says = Heard()
    assert await audited_counts(ScriptedLedger([SEVEN, EIGHT], EIGHT), says, pause_seconds=0) == EIGHT
    assert says.lines == []


async def test_counters_that_differ_from_resting_samples_are_an_error() -> None:
    with pytest.raises(OnlineRLHFError, match="are not those of its samples"):
        await audited_counts(ScriptedLedger([EIGHT], SEVEN), Silence(), pause_seconds=0)


async def test_a_ledger_that_never_rests_is_said_to_be_unchecked() -> None:
    says = Heard()
    moving = [replace(SEVEN, admitted=number) for number in range(20)]
    found = await audited_counts(ScriptedLedger(moving, EIGHT), says, pause_seconds=0)
    assert found.admitted == 9
    assert says.lines == ["samples still moved in 5 looks: the ledger's counters were not checked against its samples"]


async def test_a_checkpoint_that_the_learner_does_not_write_names_the_code() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(WaitTimeout, match=r"no checkpoint within 5 s \(UNAVAILABLE\)"):
            await checkpoint(address, timeout_seconds=5.0)
