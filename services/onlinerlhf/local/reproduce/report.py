"""`reproduction.md`, its pictures, and `reproduction.json` for programs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from onlinerlhf.local.reproduce.claims import NAMES, Claim, as_percent, given_back
from onlinerlhf.local.reproduce.layout import BASE, PPO, PROMPTED, PTX, SFT, STAGES
from onlinerlhf.local.reproduce.plots import draw_overoptimisation, draw_tax
from onlinerlhf.local.reproduce.results import Results
from onlinerlhf.local.reproduce.settings import TUNED_ON, Settings

_PICTURES = "reproduction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How the results came about."""

    settings: Settings
    seeds: tuple[int, ...]
    seconds: float
    """Wall time of the whole command."""
    claims: tuple[Claim, ...]


def write_report(results: Results, account: Account, out: Path) -> Path:
    """All files, in `out`. Returns the page's path."""
    pictures = out / _PICTURES
    draw_overoptimisation(results, pictures / "overoptimisation.png")
    draw_tax(results, pictures / "alignment-tax.png")
    (pictures / "reproduction.json").write_text(json.dumps(_as_json(results, account), indent=2) + "\n")
    page = out / "reproduction.md"
    page.write_text("\n".join(_page(results, account)) + "\n", encoding="utf-8")
    return page


def _page(results: Results, account: Account) -> Iterator[str]:
    yield from _head(account)
    yield from ["## Claims", "", *(f"- {claim}" for claim in account.claims), ""]
    yield from _table(results)
    yield from _pictures(results)
    yield from _by_seed(results)
    yield from _methods(results, account)


def _head(account: Account) -> list[str]:
    seeds = ", ".join(map(str, account.seeds))
    return [
        "# InstructGPT in miniature",
        "",
        "Written by the command; do not edit.",
        "",
        "| | |",
        "|---|---|",
        "| command | `make reproduce` (`onlinerlhf reproduce`) |",
        f"| seeds | {seeds} (world, models, users, draws); settings were chosen on seed {TUNED_ON} |",
        f"| wall time | {account.seconds / 60:.0f} minutes, two processes of one thread |",
        f"| prompts | {account.settings.num_held_out} of held-out users, a seed |",
        "",
    ]


def _table(results: Results) -> list[str]:
    head = [
        "## Stages",
        "",
        "Means over seeds; win rates with 95% intervals over seeds and prompts.",
        "",
        "| stage | win rate against SFT | gold score | reward-model score | language-model loss | KL |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for stage in STAGES:
        rate = "(50%)" if stage == SFT else as_percent(results.win_rate(stage).pooled)
        kl = results.kl_nats(stage) if stage in (SFT, PPO, PTX) else None
        rows.append(
            f"| {NAMES[stage]} | {rate} | {results.gold(stage):.3f} | {results.reward(stage):.2f} | "
            f"{results.lm_loss(stage):.3f} | {'' if kl is None else f'{kl:.2f}'} |"
        )
    averages = {stage: as_percent(results.win_rate_of_average(stage).pooled) for stage in (PPO, PTX)}
    averaged = ", ".join(f"{NAMES[stage]} {rate}" for stage, rate in averages.items())
    return [
        *head,
        *rows,
        "",
        "Gold score: the judge's, 0 to 1. Loss: nats a token on unseen pretraining text. KL: to SFT, nats a sequence.",
        f"PPO and PPO-ptx: their last weights, as was decided on seed {TUNED_ON}. The moving average, which the paper",
        f"ships, still holds much of SFT after so few updates; it wins {averaged}.",
        "",
    ]


def _pictures(results: Results) -> list[str]:
    since_base, since_sft = given_back(results, since=BASE), given_back(results)
    shares = [
        f"{share:.0%} of what PPO lost since {name}"
        for share, name in ((since_sft, "SFT"), (since_base, "the base model"))
        if share is not None
    ]
    return [
        "## Over-optimisation",
        "",
        f"![reward-model and gold score against sqrt KL]({_PICTURES}/overoptimisation.png)",
        "",
        *_overoptimisation(results),
        "",
        "## Alignment tax",
        "",
        f"![win rate against language-model loss]({_PICTURES}/alignment-tax.png)",
        "",
        f"PPO-ptx gives back {' and '.join(shares) or 'nothing, for PPO lost nothing'}.",
        "",
    ]


def _overoptimisation(results: Results) -> list[str]:
    """What the curves say in words: where the best gold score was, and what the last points have."""
    lines = []
    for run in (PPO, PTX):
        curves = [seed.curves[run] for seed in results.seeds]
        first, last = (mean(curve[place]["watched_gold"] for curve in curves) for place in (0, -1))
        best = mean(max(point["watched_gold"] for point in curve) for curve in curves)
        rewards = [mean(curve[place]["watched_reward"] for curve in curves) for place in (0, -1)]
        lines.append(
            f"{NAMES[run]}: the reward-model score goes from {rewards[0]:.2f} to {rewards[1]:.2f}, the gold score from "
            f"{first:.3f} to {last:.3f}; the best of each seed's points averages {best:.3f}."
        )
    return lines


def _by_seed(results: Results) -> list[str]:
    rows = []
    for place, seed in enumerate(results.seeds):
        for stage in STAGES:
            found, rate = seed.stages[stage], results.win_rate(stage).seeds[place]
            shown = "(50%)" if stage == SFT else f"{rate.rate:.1%} ({rate.low:.1%} to {rate.high:.1%})"
            rows.append(
                f"| {seed.seed} | {NAMES[stage]} | {shown} | {mean(found.answers.gold_scores):.3f} | "
                f"{mean(found.answers.reward_scores):.2f} | {found.lm_loss:.3f} |"
            )
    head = "| seed | stage | win rate against SFT (Wilson) | gold score | reward-model score | language-model loss |"
    wordings = "; ".join(f"seed {seed.seed}: {seed.prompted['wording']}" for seed in results.seeds)
    return [
        "## By seed", "", head, "|---|---|---|---|---|---|", *rows, "",
        f"The wording that the base model answers best to, by the judge on train users' prompts: {wordings}.", "",
    ]  # fmt: skip


def _methods(results: Results, account: Account) -> list[str]:
    settings = account.settings
    steps = ", ".join(map(str, sorted({seed.num_steps[PPO] for seed in results.seeds})))
    minutes = ", ".join(f"seed {seed.seed} {sum(seed.seconds.values()) / 60:.0f}" for seed in results.seeds)
    num_wordings = len(results.seeds[0].prompted["scores"])
    text = f"""\
## How it was done

- PPO: {steps} steps, {_settings(settings.ppo)}; everything else as `onlinerlhf train ppo` has it.
- PPO-ptx: the same, and {_settings(settings.ptx)}; it mixes in texts that the base model was pretrained on.
- Base with a good prompt: of {num_wordings} wordings (bare; with its source named as in pretraining; with worked
  examples), the one the judge likes best on {settings.num_tuning_prompts} prompts of train users.
{_reward_model(results)}\
- Win rates: each prompt answered once at temperature 1, ties half. By seed: Wilson. Over seeds: percentiles of 10,000
  draws of seeds, then of prompts.
- Language-model loss: {settings.num_unseen_texts} texts of the pretraining distribution that no model was trained on,
  every token counted alike. Texts laid out as conversations are left out, for there a policy is meant to change.
- Minutes of one core: {minutes}."""
    return text.splitlines()


def _reward_model(results: Results) -> str:
    """How good each seed's is on people it never saw, and how honest its confidence."""
    found = [(seed.seed, seed.bootstrap["reward"]) for seed in results.seeds if "reward" in seed.bootstrap]
    seeds = "; ".join(
        f"seed {seed}: {reward['held_out_labelers_accuracy']:.3f} of {reward['held_out_labelers_ceiling']:.3f}, "
        f"calibration error {reward['calibration_error']:.3f}"
        for seed, reward in found
    )
    return (
        f"- Reward model, pair accuracy on labelers it never saw, of what a perfect judge gets: {seeds}.\n"
        if found
        else ""
    )


def _settings(values: object) -> str:
    pairs = dict(values).items() if values else ()  # type: ignore[call-overload]
    return ", ".join(f"`{key}` {value}" for key, value in pairs) or "nothing else"


def _as_json(results: Results, account: Account) -> dict[str, object]:
    def numbers(stage: str) -> dict[str, object]:
        rate = results.win_rate(stage)
        return {
            "win_rate": rate.pooled.value,
            "win_rate_low": rate.pooled.low,
            "win_rate_high": rate.pooled.high,
            "win_rates": [seed.rate for seed in rate.seeds],
            "gold_score": results.gold(stage),
            "reward_score": results.reward(stage),
            "lm_loss": results.lm_loss(stage),
            "lm_losses": [seed.stages[stage].lm_loss for seed in results.seeds],
            "kl_nats": results.kl_nats(stage),
        }

    claims: Sequence[Claim] = account.claims
    return {
        "seeds": list(account.seeds),
        "seconds": round(account.seconds, 1),
        "claims": [{"text": claim.text, "holds": claim.holds} for claim in claims],
        "reward_model_ratio": results.reward_model_ratio(),
        "given_back_since_sft": given_back(results),
        "given_back_since_base": given_back(results, since=BASE),
        "sft_over_prompted": results.win_rate(SFT, PROMPTED).pooled.value,
        "stages": {stage: numbers(stage) for stage in STAGES},
        "settings": {"ppo": dict(account.settings.ppo), "ptx": dict(account.settings.ptx)},
    }
