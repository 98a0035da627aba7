"""`onlinerlhf demo`: does learning online from users make the policy better?

models (once) -> platform up -> `learning.Demo.run` -> platform down -> report -> verdict
"""

from pathlib import Path

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.learner.bootstrap import bootstrap, tiny_models
from onlinerlhf.learner.training.progress import Reporter, reporter
from onlinerlhf.local.demo_settings import DEMO, FAST, DemoSettings
from onlinerlhf.local.learning import Demo, Phases
from onlinerlhf.local.monitor import Monitor
from onlinerlhf.local.platform import PlatformSpec, plan
from onlinerlhf.local.report import Outcome, write_report
from onlinerlhf.local.running import running
from onlinerlhf.local.signals import OnKill, run_until_signal


def demo(home: Path, *, run: str, fast: bool) -> None:
    """The whole demo; raises when the policy did not get better."""
    settings = FAST if fast else DEMO
    run_dir = new_run_dir(home.resolve(), run)
    models = home.resolve() / ("models-tiny" if fast else "models")
    clock = Phases()
    with reporter() as says:
        make_models(models, fast=fast, seed=settings.seed, says=says)
        clock.done("models")

        async def main(on_kill: OnKill) -> Outcome:
            spec = PlatformSpec(
                run_dir=run_dir,
                run_id=run_dir.name,
                policy_dir=models / "sft",
                reward_dir=models / "reward",
                overrides=settings.sections,
            )
            async with running(plan(spec), report=says.say) as platform:
                on_kill(platform.kill_all)
                async with Monitor(platform.endpoints) as monitor:
                    clock.done("start")
                    return await Demo(settings, platform, monitor, says, clock).run()

        outcome = run_until_signal(main)
    if outcome is None:
        raise OnlineRLHFError("interrupted; everything was drained, no report was written")
    write_report(outcome, run_dir / "report")
    print(f"{headline(outcome)}\nreport: {run_dir / 'report' / 'report.md'}")
    check(outcome, settings)


def headline(outcome: Outcome) -> str:
    """The result in one line."""
    rate = outcome.evaluation.win_rate
    return (
        f"PPO beats SFT on {rate.rate:.1%} of {rate.num_prompts} held-out prompts (95% interval {rate.low:.1%} to "
        f"{rate.high:.1%}); {outcome.versions_applied} versions applied in flight; ledger imbalance "
        f"{outcome.ledger.imbalance}; {outcome.seconds:.0f} s"
    )


def check(outcome: Outcome, settings: DemoSettings) -> None:
    """Raise where the demo does not show what it should; the message names all of it."""
    failures = [f"{outcome.ledger.imbalance} samples unaccounted for"] if outcome.ledger.imbalance else []
    if settings.needs_win:
        failures += missed(outcome, settings)
    if failures:
        raise OnlineRLHFError(f"the demo did not show what it should: {'; '.join(failures)}")


def missed(outcome: Outcome, settings: DemoSettings) -> list[str]:
    """What a demo that is to win falls short of."""
    rate, versions = outcome.evaluation.win_rate, outcome.versions_applied
    demands = (
        (rate.low > 0.5, f"the win rate's 95% interval starts at {rate.low:.1%}, not above 50%"),
        (rate.rate >= settings.min_win_rate, f"the win rate is {rate.rate:.1%}, below {settings.min_win_rate:.0%}"),
        (rate.num_prompts >= settings.min_prompts, f"{rate.num_prompts} prompts, not {settings.min_prompts}, compared"),
        (versions >= settings.min_versions, f"{versions} versions applied in flight, not {settings.min_versions}"),
    )
    return [failure for met, failure in demands if not met]


def make_models(directory: Path, *, fast: bool, seed: int, says: Reporter) -> None:
    """Bootstrap what is not there yet."""
    if not fast:
        bootstrap(directory, seed=seed, scale="demo", progress=says)
    elif not (directory / "reward").is_dir():
        tiny_models(directory, tie_word_embeddings=False, seed=seed)


def new_run_dir(home: Path, run: str) -> Path:
    """`run`, or `run-2`, `run-3`, …: a demo never goes on where another one stopped."""
    names = [run, *(f"{run}-{number}" for number in range(2, 1_000))]
    for name in names:
        if not (home / "runs" / name).exists():
            return home / "runs" / name
    raise OnlineRLHFError(f"{home / 'runs'} holds a thousand runs named {run}; choose another name")
