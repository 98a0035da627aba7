"""The tables of `onlinerlhf k8s status`."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onlinerlhf.scaler.commands.leadership import Leadership
from onlinerlhf.scaler.commands.pools import Pool
from onlinerlhf.scaler.commands.readiness import Workload
from onlinerlhf.scaler.commands.waiting import ago


def as_picture(
    *,
    pools: Sequence[Pool],
    leadership: Leadership,
    workloads: Sequence[tuple[str, Workload]],
    waits: Sequence[str],
    now: datetime,
    trouble: str = "",
) -> RenderableType:
    """Pools, why, and the rest of the platform. What is not current is dim and says so."""
    parts: list[RenderableType] = []
    if trouble:
        parts.append(Text(trouble, style="bold red"))
    parts.append(Text(leadership.words, style="" if leadership.is_current else "bold red"))
    parts.append(_pool_table(pools, is_current=leadership.is_current))
    parts.extend(_why(pool, now=now, is_current=leadership.is_current) for pool in pools)
    parts.append(Text())
    parts.append(_workload_table(workloads))
    parts.extend(Text(line, style="yellow") for line in waits)
    return Group(*parts)


def _pool_table(pools: Sequence[Pool], *, is_current: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("pool", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    for name in ("desired", "current", "ready", "backlog", "in flight", "oldest", "staleness", "version"):
        table.add_column(name, justify="right", no_wrap=True)
    for pool in pools:
        style = "" if is_current else "dim"
        if pool.troubles:
            style = "red"
        table.add_row(escape(pool.name), pool.mode, *_numbers(pool), style=style)
    if not pools:
        table.add_row("none", *[""] * 9)
    return table


def _numbers(pool: Pool) -> tuple[str, ...]:
    version = _number(pool.version)
    if pool.version is not None and pool.learner_version:
        version = f"{pool.version} of {pool.learner_version}"
    return (
        _number(pool.desired),
        _number(pool.current),
        _number(pool.ready),
        _number(pool.backlog),
        _number(pool.in_flight),
        "?" if pool.oldest_seconds is None else ago(pool.oldest_seconds),
        "?" if pool.staleness is None else f"{pool.staleness:.1f}",
        version,
    )


def _why(pool: Pool, *, now: datetime, is_current: bool) -> Text:
    """The scaler's own words, how long ago it last changed the size, and what is wrong."""
    text = Text(f"{pool.name}: ")
    if not pool.reason:
        return text.append("the scaler has not looked at it yet", style="red")
    text.append(pool.reason, style="bold").append(f": {pool.message}" if pool.message else "")
    if pool.last_scaled is None:
        text.append("; never scaled")
    else:
        text.append(f"; last scaled {ago((now - pool.last_scaled).total_seconds())} ago")
    if not pool.is_seen:
        text.append("; the scaler has not seen the newest change yet", style="yellow")
    if not is_current:
        text.append(" (not current)", style="red")
    for trouble in pool.troubles:
        state = trouble.type if trouble.is_true else f"not {trouble.type}"
        text.append(f"\n  {state}: {trouble.message or trouble.reason}", style="red")
    return text


def _workload_table(workloads: Sequence[tuple[str, Workload]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("component", "workload", "ready"):
        table.add_column(name, no_wrap=True)
    for component, each in workloads:
        state = each.state if each.is_done or each.ready < each.wanted else f"{each.state} (updating)"
        table.add_row(component, each.label, state, style="" if each.is_done else "yellow")
    return table


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
