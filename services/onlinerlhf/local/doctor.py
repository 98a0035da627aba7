"""Names the stuck edge: what is wrong in a snapshot, why, and what to look at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.local.snapshot import STREAMS, Snapshot, StageView

SILENT_SECONDS = 60.0
"""A consumer that neither read nor renewed a lease for this long is not reading."""
STALE_SHARE = 0.1
"""Share of finished samples dropped as stale above which the loop wastes work."""

READERS: Mapping[Stage, str] = {Stage.PROMPTS: "rollout", Stage.ROLLOUTS: "reward", Stage.SCORED: "learner"}


class Severity(StrEnum):
    """How bad."""

    BROKEN = "broken"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing an operator should know."""

    severity: Severity
    edge: str
    """The service, or `from -> to` where work is stuck."""
    message: str


def diagnose(snapshot: Snapshot, earlier: Snapshot | None = None) -> list[Finding]:
    """Findings, worst first. With an `earlier` snapshot growth is told from a standing count. Pure."""
    findings = [
        *_services(snapshot),
        *_workers(snapshot),
        *_streams(snapshot),
        *_dead_letters(snapshot, earlier),
        *_ledger(snapshot),
        *_supply(snapshot),
    ]
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def _services(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.redis_error:
        yield Finding(
            severity=Severity.BROKEN,
            edge="redis",
            message=f"{snapshot.redis_error}; every service waits for it, nothing is lost",
        )
    for service in snapshot.services:
        if service.is_in_passing:
            message = f"{service.state}: {service.wrong or 'nothing is wrong'}"
            yield Finding(severity=Severity.NOTE, edge=service.name, message=message)
            continue
        if service.state == "failed":
            message = f"{service.error}; `onlinerlhf scale rollout N` tries again"
            yield Finding(severity=Severity.BROKEN, edge=service.name, message=message)
            continue
        if service.error:
            yield Finding(severity=Severity.BROKEN, edge=service.name, message=f"down: {service.error}")
        for part in service.components:
            if not part.ok:
                since = f"for {part.since_seconds:.0f} s"
                message = f"{part.name} is not ok {since}: {part.reason or 'no reason given'}"
                yield Finding(severity=Severity.BROKEN, edge=service.name, message=message)
    said = {part.reason for service in snapshot.services for part in service.components if not part.ok}
    if snapshot.learner is not None and snapshot.learner.last_error not in {"", *said}:
        yield Finding(severity=Severity.BROKEN, edge="learner", message=snapshot.learner.last_error)


def _workers(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.workers.desired == 0:
        message = "0 workers are asked for: users get no answers, nothing is sampled (`onlinerlhf scale rollout 1`)"
        yield Finding(severity=Severity.WARNING, edge="rollout", message=message)
    in_passing = {service.name for service in snapshot.services if service.is_in_passing}
    for worker in snapshot.rollouts:
        if not worker.ready and worker.name not in in_passing:
            message = f"takes no work: {worker.reason or 'no reason given'}"
            yield Finding(severity=Severity.BROKEN, edge=worker.name, message=message)
        if worker.num_updates_refused:
            message = f"refused {worker.num_updates_refused} weight updates: {worker.last_refusal}"
            yield Finding(severity=Severity.WARNING, edge=f"learner -> {worker.name}", message=message)


def _streams(snapshot: Snapshot) -> Iterator[Finding]:
    for stage in STREAMS:
        view = snapshot.stages.get(stage)
        if view is None or view.backlog == 0:
            continue
        edge = f"[{stage}] -> {READERS[stage]}"
        if not any(consumer.idle_seconds < SILENT_SECONDS for consumer in view.consumers):
            yield _unread(snapshot, stage, view, edge)
        yield from _stuck_leases(snapshot, view, edge)


def _unread(snapshot: Snapshot, stage: Stage, view: StageView, edge: str) -> Finding:
    ahead = snapshot.backlog(Stage.ROLLOUTS) + snapshot.backlog(Stage.SCORED)
    if stage is Stage.PROMPTS and ahead >= snapshot.limits.max_samples_ahead:
        message = f"sampling rests: {ahead} samples wait for the learner, as many as max_samples_ahead allows"
        return Finding(severity=Severity.NOTE, edge=edge, message=message)
    message = f"{view.backlog} entries and no consumer that read in the last {SILENT_SECONDS:.0f} s"
    return Finding(severity=Severity.BROKEN, edge=edge, message=message)


def _stuck_leases(snapshot: Snapshot, view: StageView, edge: str) -> Iterator[Finding]:
    lease = snapshot.limits.lease_seconds
    for consumer in view.consumers:
        if consumer.pending and consumer.idle_seconds > lease:
            message = (
                f"{consumer.name} holds {consumer.pending} entries and gave no sign for {consumer.idle_seconds:.0f} s "
                f"(lease {lease:.0f} s); another reader takes them over"
            )
            yield Finding(severity=Severity.WARNING, edge=edge, message=message)


def _dead_letters(snapshot: Snapshot, earlier: Snapshot | None) -> Iterator[Finding]:
    for stage, view in snapshot.stages.items():
        before = earlier.stages[stage].num_dead if earlier is not None and stage in earlier.stages else view.num_dead
        if view.num_dead > before:
            message = f"dead letters grow: {view.num_dead - before} new, {view.num_dead} in [{stage}.dead]"
            yield Finding(severity=Severity.BROKEN, edge=f"[{stage}] -> {READERS[stage]}", message=message)
        elif view.num_dead:
            message = f"{view.num_dead} samples in [{stage}.dead]; each entry names its sample and the kind of error"
            yield Finding(severity=Severity.WARNING, edge=f"[{stage}] -> {READERS[stage]}", message=message)


def _ledger(snapshot: Snapshot) -> Iterator[Finding]:
    ledger = snapshot.ledger
    if ledger is None:
        return
    if ledger.imbalance:
        message = (
            f"imbalance {ledger.imbalance}: {ledger.admitted} admitted, but {ledger.trained} trained + "
            f"{ledger.num_dropped} dropped + {ledger.num_pending} pending"
        )
        yield Finding(severity=Severity.BROKEN, edge="ledger", message=message)
    stale = ledger.dropped.get(DropReason.STALE, 0)
    if stale > STALE_SHARE * (ledger.trained + ledger.num_dropped):
        message = f"{stale} samples dropped as stale: lower rollout.max_samples_ahead or raise learner.max_staleness"
        yield Finding(severity=Severity.WARNING, edge="rollout -> learner", message=message)


def _supply(snapshot: Snapshot) -> Iterator[Finding]:
    """The learner waits: is anything on its way to it?"""
    learner = snapshot.learner
    if snapshot.ledger is None or learner is None or snapshot.ledger.num_pending + learner.num_collected == 0:
        if snapshot.ledger is not None and snapshot.ledger.num_pending == 0:
            yield Finding(
                severity=Severity.NOTE,
                edge="clients -> gateway",
                message="the pool is empty: the run needs prompts (`onlinerlhf submit`)",
            )
        return
    upstream = snapshot.pool_new + snapshot.pool_reuse + sum(snapshot.backlog(stage) for stage in STREAMS[:2])
    short = learner.num_collected < learner.batch_size
    if learner.phase == "collecting" and short and upstream == 0:
        message = (
            f"the learner has {learner.num_collected} of the {learner.batch_size} rollouts of a batch and nothing is "
            "on its way: submit more prompts or raise gateway.max_epochs"
        )
        yield Finding(severity=Severity.WARNING, edge="clients -> learner", message=message)
