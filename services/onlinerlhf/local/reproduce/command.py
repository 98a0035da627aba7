"""`onlinerlhf reproduce`: train, measure, conclude, write it down."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.learner.training.progress import Reporter, reporter
from onlinerlhf.local.reproduce.claims import Claim, claims
from onlinerlhf.local.reproduce.layout import SeedDirectory
from onlinerlhf.local.reproduce.report import Account, write_report
from onlinerlhf.local.reproduce.results import Results, load_result
from onlinerlhf.local.reproduce.seeds import NUM_AT_ONCE, Runner
from onlinerlhf.local.reproduce.settings import FAST, MINIATURE
from onlinerlhf.local.signals import OnKill, run_until_signal

_ELAPSED = "elapsed.json"


def reproduce(home: Path, *, seeds: Sequence[int], out: Path | None, fast: bool) -> None:
    """Everything; raises when a claim does not hold."""
    settings = FAST if fast else MINIATURE
    root = home.resolve() / ("reproduce-fast" if fast else "reproduce")
    directories = [SeedDirectory(root=root, settings=settings, seed=seed) for seed in seeds]
    for directory in directories:
        directory.claim()
    with reporter() as says:
        seconds = _run(directories, root, says, fast=fast)
    results = Results(seeds=tuple(load_result(directory) for directory in directories))
    found = claims(results)
    account = Account(settings=settings, seeds=tuple(seeds), seconds=seconds, claims=found)
    report = write_report(results, account, out or root / "report")
    print("\n".join([*map(str, found), f"report: {report}"]))
    if settings.is_proof:
        demand(found)


def demand(found: Sequence[Claim]) -> None:
    """Raise where a claim does not hold."""
    failed = [claim for claim in found if not claim.holds]
    if failed:
        raise OnlineRLHFError(f"{len(failed)} of {len(found)} claims do not hold; the report says how far they are off")


def _run(directories: Sequence[SeedDirectory], root: Path, says: Reporter, *, fast: bool) -> float:
    """All jobs. Returns the seconds they took, those of earlier runs that were broken off included."""
    began, before = time.monotonic(), _elapsed(root)

    async def main(_: OnKill) -> bool:
        runner = Runner(fast=fast, reporter=says, turns=asyncio.Semaphore(NUM_AT_ONCE))
        await runner.run(directories)
        return True

    is_done = False
    try:
        is_done = bool(run_until_signal(main))
    finally:
        seconds = before + time.monotonic() - began
        (root / _ELAPSED).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
    if not is_done:
        raise OnlineRLHFError("interrupted; what is done is kept, and the same command goes on from there")
    return seconds


def _elapsed(root: Path) -> float:
    path = root / _ELAPSED
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.exists() else 0.0
