"""A day of bursty traffic on workers that take 90 s to start: how long prompts wait, and what the GPUs cost.

The scaler's own decide() beside a plain HPA on CPU, KEDA on the stream's lag, and the least that anyone could do it
with who knows the day in advance and serves every prompt within KEDA's p99. All have the same workers, bounds and
prompts. Simulated; the learner keeps up, and there are no users. Then four hours of a learner that does not keep up.
`--plot FILE` draws the first day.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from claims import Claim
from scaling_bound import least_gpu_hours
from scaling_fleet import MAX_REPLICAS, SLOTS, Fleet, Outcome, Policy
from scaling_learner import HOURS, LearnerFleet, LearnerScaler
from scaling_policies import CPU, KEDA, Scaler
from scaling_traffic import DAY_SECONDS, Day, make_day

SEEDS = range(3, 8)
"""Days that played no part in choosing the rules; 0 to 2 did."""
POLICIES: Mapping[str, Callable[[], Policy]] = {
    "scaler": Scaler,
    "hpa_on_cpu": CPU,
    "keda_on_lag": lambda: KEDA(lag_count=SLOTS),
}
MAX_RATIO = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One day."""

    day: Day
    outcomes: Mapping[str, Outcome]
    bound_gpu_hours: float
    """With KEDA's p99."""

    def wait(self, policy: str, percent: float) -> float:
        """Percentile of the prompts' waits, in seconds."""
        return float(np.percentile(self.outcomes[policy].waits, percent))

    @property
    def ratio(self) -> float:
        """The scaler's GPU-hours to the bound's."""
        return self.outcomes["scaler"].gpu_hours / self.bound_gpu_hours


def main(plot: Path | None) -> Iterator[Claim]:
    """All claims: means over the days, and the worst day where there is a goal."""
    rows = []
    for seed in SEEDS:
        rows.append(_row(seed))
        print(f"day {seed}: ratio {rows[-1].ratio:.3f}", file=sys.stderr)
    for policy in POLICIES:
        for percent in (50, 99):
            waits = [row.wait(policy, percent) for row in rows]
            yield _reported(f"scaling_wait_p{percent}_{policy}", float(np.mean(waits)), "s")
        hours = [row.outcomes[policy].gpu_hours for row in rows]
        yield _reported(f"scaling_gpu_hours_{policy}", float(np.mean(hours)), "GPU-h/day")
        starts = [row.outcomes[policy].num_starts for row in rows]
        yield _reported(f"scaling_starts_{policy}", float(np.mean(starts)), "workers/day")
        stopped = [row.outcomes[policy].num_stopped_with_work for row in rows]
        yield _reported(f"scaling_stopped_with_work_{policy}", float(np.mean(stopped)), "workers/day")
    bounds = [row.bound_gpu_hours for row in rows]
    yield _reported("scaling_gpu_hours_clairvoyant_bound", float(np.mean(bounds)), "GPU-h/day")
    ratio = max(row.ratio for row in rows)
    yield Claim(
        name="scaling_gpu_hours_to_bound_worst_day",
        value=ratio,
        unit="ratio",
        goal=f"<={MAX_RATIO}",
        ok=ratio <= MAX_RATIO,
    )
    wait = max(row.wait("scaler", 99) / row.wait("keda_on_lag", 99) for row in rows)
    yield Claim(name="scaling_p99_to_keda_worst_day", value=wait, unit="ratio", goal="<=1", ok=wait <= 1)
    num = sum(row.outcomes["scaler"].num_stopped_with_work for row in rows)
    yield Claim(name="scaling_stopped_with_work_all_days", value=num, unit="workers", goal="<=0", ok=num == 0)
    yield from _with_a_slow_learner()
    if plot is not None:
        _draw(rows[0], plot)


def _with_a_slow_learner() -> Iterator[Claim]:
    """What it is worth that the scaler knows how fast the learner is."""
    for name, knows_rate in (("knowing_its_rate", True), ("by_the_bound_alone", False)):
        outcome = LearnerFleet().run_hours(LearnerScaler(knows_rate=knows_rate))
        yield _reported(f"scaling_slow_learner_idle_share_{name}", outcome.idle_share, "of_time")
        yield _reported(f"scaling_slow_learner_workers_{name}", outcome.mean_workers, "workers")
        yield _reported(f"scaling_slow_learner_starts_{name}", outcome.num_starts, f"in_{HOURS}_h")


def _row(seed: int) -> Row:
    day = make_day(seed)
    outcomes = {name: Fleet(day, seed=seed).run(make()) for name, make in POLICIES.items()}
    wait = float(np.percentile(outcomes["keda_on_lag"].waits, 99))
    return Row(day=day, outcomes=outcomes, bound_gpu_hours=least_gpu_hours(day, wait_seconds=wait))


def _draw(row: Row, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    hours = np.arange(DAY_SECONDS) / 3600
    busy = np.cumsum(
        np.bincount(row.day.arrivals, minlength=DAY_SECONDS)
        - np.bincount(row.day.arrivals + row.day.services, minlength=DAY_SECONDS)[:DAY_SECONDS]
    )
    figure, panels = plt.subplots(len(POLICIES), 1, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
    for panel, (name, outcome) in zip(panels, row.outcomes.items(), strict=True):
        panel.fill_between(hours, busy / SLOTS, color="0.8", label="work, in workers, were none to wait")
        panel.plot(hours, outcome.sizes, linewidth=0.8, label="workers that cost a GPU")
        panel.set_title(
            f"{name}: {outcome.gpu_hours:.0f} GPU-h, wait p99 {row.wait(name, 99):.0f} s", loc="left", fontsize=9
        )
        panel.set_ylim(0, MAX_REPLICAS * 1.1)
        panel.set_ylabel("workers")
    panels[0].legend(loc="upper left", fontsize=8)
    panels[-1].set_xlabel("hour of the day")
    figure.savefig(path, dpi=110)


def _reported(name: str, value: float, unit: str) -> Claim:
    return Claim(name=name, value=value, unit=unit, goal="reported", ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    for claim in main(parser.parse_args().plot):
        print(claim)
