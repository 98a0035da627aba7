"""What the reproduction has to show."""

from dataclasses import dataclass

from onlinerlhf.local.reproduce.layout import BASE, PPO, PROMPTED, PTX, SFT
from onlinerlhf.local.reproduce.results import Results
from onlinerlhf.local.reproduce.statistics import Interval

MIN_GIVEN_BACK = 0.7
MAX_WIN_RATE_LOST = 0.03
MIN_REWARD_MODEL_RATIO = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One line."""

    text: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'FAILS'}: {self.text}"


def claims(results: Results) -> tuple[Claim, ...]:
    """All of them, each with its number."""
    return (
        _beats(results, PPO, SFT),
        _beats(results, PTX, SFT),
        _beats(results, SFT, PROMPTED),
        _gives_back(results),
        _costs_little(results),
        _knows_strangers(results),
    )


def given_back(results: Results, *, since: str = SFT) -> float | None:
    """The share of the language-model loss that PPO gave up and PPO-ptx did not: (PPO - PPO-ptx) / (PPO - since).

    Above 1 where PPO-ptx is better at pretraining text than the policy it started from. None: PPO gave up nothing.
    """
    ppo, ptx, start = (results.lm_loss(stage) for stage in (PPO, PTX, since))
    return (ppo - ptx) / (ppo - start) if ppo > start else None


def _beats(results: Results, winner: str, loser: str) -> Claim:
    found = results.win_rate(winner, loser)
    seeds = ", ".join(f"{seed.rate:.1%} ({seed.low:.1%} to {seed.high:.1%})" for seed in found.seeds)
    return Claim(
        text=f"{NAMES[winner]} beats {NAMES[loser]}: win rate {as_percent(found.pooled)}, above 50%; by seed {seeds}",
        holds=found.pooled.low > 0.5,
    )


def _gives_back(results: Results) -> Claim:
    share = given_back(results)
    losses = ", ".join(f"{NAMES[stage]} {results.lm_loss(stage):.3f}" for stage in (BASE, SFT, PPO, PTX))
    if share is None:
        return Claim(text=f"PPO gave up no language-model loss that could be given back ({losses})", holds=False)
    return Claim(
        text=f"PPO-ptx gives back {share:.0%} of the language-model loss that PPO gave up, at least "
        f"{MIN_GIVEN_BACK:.0%} (nats a token: {losses})",
        holds=share >= MIN_GIVEN_BACK,
    )


def _costs_little(results: Results) -> Claim:
    lost = results.win_rate(PPO).pooled.value - results.win_rate(PTX).pooled.value
    return Claim(
        text=f"PPO-ptx's win rate is {100 * abs(lost):.1f} points {'lower' if lost > 0 else 'higher'} than PPO's, at "
        f"most {100 * MAX_WIN_RATE_LOST:.0f} lower",
        holds=lost <= MAX_WIN_RATE_LOST,
    )


def _knows_strangers(results: Results) -> Claim:
    ratio = results.reward_model_ratio()
    shown = "was not measured" if ratio is None else f"{ratio:.1%}"
    return Claim(
        text=f"the reward model's pair accuracy on labelers it never saw, over a perfect judge's: {shown}, at least "
        f"{MIN_REWARD_MODEL_RATIO:.0%}",
        holds=ratio is not None and ratio >= MIN_REWARD_MODEL_RATIO,
    )


NAMES = {BASE: "base", PROMPTED: "base with a good prompt", SFT: "SFT", PPO: "PPO", PTX: "PPO-ptx"}
"""Stages as people call them."""


def as_percent(interval: Interval) -> str:
    """63.1% (60.2% to 66.0%)."""
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"
