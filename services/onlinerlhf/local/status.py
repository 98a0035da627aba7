"""One picture of the platform: a table for people, JSON for programs, a line for logs."""

from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onlinerlhf.local.snapshot import STREAMS, RolloutView, ServiceView, Snapshot, WorkersView


def as_json(snapshot: Snapshot) -> dict[str, object]:
    """Everything in the snapshot, with the sums people ask for."""
    record = asdict(snapshot)
    record["stages"] = {str(stage): asdict(view) for stage, view in snapshot.stages.items()}
    record["tokens_per_second"] = snapshot.tokens_per_second
    return record


def as_line(snapshot: Snapshot) -> str:
    """One plain line."""
    return " | ".join(
        (
            f"pool {snapshot.pool_new}+{snapshot.pool_reuse}",
            " ".join(f"{stage} {snapshot.backlog(stage)}" for stage in STREAMS),
            f"{snapshot.tokens_per_second:,.0f} tokens/s",
            workers_text(snapshot),
            learner_text(snapshot),
            ledger_text(snapshot),
            health_text(snapshot),
        )
    )


def as_table(snapshot: Snapshot) -> RenderableType:
    """A table with a row a fact."""
    table = Table(title=f"onlinerlhf, run {snapshot.run_id}", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _rows(snapshot):
        table.add_row(Text(name), Text(value))
    return Group(table, services_table(snapshot))


def services_table(snapshot: Snapshot) -> Table:
    """A row a service: state, restarts, and what is wrong."""
    table = Table(box=None, header_style="bold")
    for header in ("service", "state", "restarts", "up", "what is wrong"):
        table.add_column(header)
    for service in snapshot.services:
        uptime = f"{service.uptime_seconds:,.0f} s"
        table.add_row(service.name, _state(service), str(service.restarts), uptime, Text(service.wrong))
    return table


def _state(service: ServiceView) -> Text:
    if service.is_in_passing:
        return Text(service.state, style="yellow")
    return Text("ok", style="green") if service.ok else Text("not ok", style="red")


def learner_text(snapshot: Snapshot) -> str:
    """Step, version, and the newest step's reward, KL and staleness."""
    learner = snapshot.learner
    if learner is None:
        return "learner away"
    values = learner.metrics
    head = (
        f"step {learner.step} version {learner.version} ({learner.phase} {learner.num_collected}/{learner.batch_size})"
    )
    if not values:
        return head
    return (
        f"{head} reward {values.get('score_mean', float('nan')):.3f} "
        f"KL {values.get('kl_per_sequence_nats', float('nan')):.2f} nats/seq "
        f"staleness {values.get('staleness_mean', float('nan')):.2f} "
        f"(max {values.get('staleness_max', float('nan')):.0f})"
    )


def workers_text(snapshot: Snapshot) -> str:
    """How many rollout workers are ready, of how many asked for."""
    view = snapshot.workers
    coming = f", {view.current - view.ready} not ready" if view.current > view.ready else ""
    going = f", {view.draining} draining" if view.draining else ""
    return f"rollout workers {view.ready} of {view.desired}{coming}{going}"


def worker_text(worker: RolloutView) -> str:
    """A rollout worker's version, speed and updates; first what it is up to, where that is not its work."""
    other = "" if worker.state == "ready" else f"{worker.state}, "
    return (
        f"{other}version {worker.version}, {worker.tokens_per_second:,.0f} tokens/s, {worker.num_in_flight} in flight, "
        f"{worker.num_updates_applied} updates applied, {worker.num_updates_refused} refused, "
        f"last pause {worker.pause_seconds * 1000:.0f} ms, idle {worker.idle_share:.0%}"
    )


def ledger_text(snapshot: Snapshot) -> str:
    """The conservation law with its numbers."""
    ledger = snapshot.ledger
    if ledger is None:
        return "ledger unknown"
    return (
        f"admitted {ledger.admitted} = trained {ledger.trained} + dropped {ledger.num_dropped} "
        f"+ pending {ledger.num_pending} (imbalance {ledger.imbalance})"
    )


def health_text(snapshot: Snapshot) -> str:
    """ok, or who is not and why."""
    wrong = [snapshot.redis_error] if snapshot.redis_error else []
    for service in snapshot.services:
        if service.is_in_passing:
            continue
        if service.error:
            wrong.append(f"{service.name}: {service.error}")
        wrong.extend(f"{service.name}/{part.name}: {part.reason}" for part in service.components if not part.ok)
    return "; ".join(wrong) or "all ok"


def _counts(view: WorkersView) -> str:
    return f"{view.desired} workers asked for, {view.current} there, {view.ready} ready, {view.draining} draining"


def _rows(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    yield "prompts", f"{snapshot.pool_new} new and {snapshot.pool_reuse} to reuse in the pool"
    for stage in STREAMS:
        view = snapshot.stages.get(stage)
        dead = f", {view.num_dead} dead letters" if view is not None and view.num_dead else ""
        yield f"[{stage}]", f"{snapshot.backlog(stage)} backlog{dead}"
    yield "rollout", _counts(snapshot.workers)
    for worker in snapshot.rollouts:
        yield worker.name, worker_text(worker)
    yield "learner", learner_text(snapshot)
    if snapshot.learner is not None and snapshot.learner.last_error:
        yield "learner error", snapshot.learner.last_error
    yield "ledger", ledger_text(snapshot)
    if snapshot.ledger is not None and snapshot.ledger.dropped:
        yield "dropped", ", ".join(f"{reason} {count}" for reason, count in sorted(snapshot.ledger.dropped.items()))
    if snapshot.redis_error:
        yield "redis", snapshot.redis_error
