"""`onlinerlhf train reward`: from files of rankings to a reward model with a report of how far it can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from onlinerlhf.core.errors import DataError
from onlinerlhf.learner.training.agreement import agreement
from onlinerlhf.learner.training.calibration import draw_calibration
from onlinerlhf.learner.training.config import load_training_config
from onlinerlhf.learner.training.data import Example, load_demonstrations, load_rankings
from onlinerlhf.learner.training.loop import Outcome
from onlinerlhf.learner.training.match import check_lengths, check_tokenizer
from onlinerlhf.learner.training.progress import Reporter, reporter
from onlinerlhf.learner.training.ranking_split import RankingSplit, split_rankings, usable
from onlinerlhf.learner.training.reward_config import RewardConfig
from onlinerlhf.learner.training.reward_model import centre, reward_model_from, train_on_rankings
from onlinerlhf.learner.training.run import RunDirectory, open_run
from onlinerlhf.models.tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardInputs:
    """What is trained, on what, and where to."""

    model: Path
    """The policy directory to start from, usually the SFT model."""
    data: tuple[Path, ...]
    out: Path
    demonstrations: Path | None = None
    """Whose mean score becomes 0; None: scores keep an arbitrary level."""

    @property
    def files(self) -> dict[str, Path | Sequence[Path] | None]:
        """What the result depends on."""
        return {"model": self.model, "data": self.data, "demonstrations": self.demonstrations}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    split: RankingSplit
    num_without_preference: int
    demonstrations: list[Example]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        rankings = [*self.split.train, *self.split.held_out]
        ranked = [len(ranking.prompt) + max(map(len, ranking.responses)) for ranking in rankings]
        return max([*ranked, *(example.num_tokens for example in self.demonstrations)])

    @property
    def counts(self) -> dict[str, int]:
        """For the report."""
        return {
            "rankings": len(self.split.train),
            "rankings_without_preference": self.num_without_preference,
            "rankings_set_aside": self.split.num_set_aside,
            "demonstrations": len(self.demonstrations),
        }


def reward_command(
    *, config: Path | None, settings: Sequence[str], held_out_labelers: str | None = None, **inputs: Any
) -> None:
    """The command line's way in."""
    logging.disable_progress_bar()
    chosen = load_training_config(RewardConfig, path=config, settings=settings)
    if held_out_labelers is not None:
        chosen = chosen.replaced(held_out_labelers=held_out_labelers)
    with reporter() as progress:
        train_reward(RewardInputs(**inputs), chosen, progress)


def train_reward(inputs: RewardInputs, config: RewardConfig, progress: Reporter) -> None:
    """Train, or go on with a training that stopped, and leave a model directory with its report in `inputs.out`."""
    tokenizer = PromptTokenizer.load(inputs.model)
    data = _load(inputs, config, tokenizer)
    model = reward_model_from(inputs.model, seed=config.seed)
    check_tokenizer(model.config, tokenizer, inputs.model)
    check_lengths(model.config, data.longest, inputs.model)
    model.to(config.torch_device)
    with open_run(inputs.out, command="reward", config=config, inputs=inputs.files) as run:
        if run.is_complete:
            progress.say(f"{inputs.out} is complete; its report is {run.report_path}")
            return
        _announce(data, progress)
        outcome = train_on_rankings(
            model, data.split.train, config, progress=progress, run=run, held_out=data.split.held_out
        )
        _finish(run, model, outcome, data, config, inputs.model, progress)


def _load(inputs: RewardInputs, config: RewardConfig, tokenizer: PromptTokenizer) -> _Data:
    limits = {"max_prompt_tokens": config.max_prompt_tokens, "max_response_tokens": config.max_response_tokens}
    rankings = load_rankings(inputs.data, tokenizer, **limits)
    preferring = usable(rankings)
    if not preferring:
        raise DataError(f"none of the {len(rankings)} rankings prefers one response to another: all are ties")
    demonstrations = load_demonstrations(inputs.demonstrations, tokenizer, **limits) if inputs.demonstrations else []
    split = split_rankings(preferring, labelers=config.held_out_labelers, share=config.held_out_share, seed=config.seed)
    return _Data(split=split, num_without_preference=len(rankings) - len(preferring), demonstrations=demonstrations)


def _announce(data: _Data, progress: Reporter) -> None:
    split = data.split
    progress.say(
        f"{len(split.train)} rankings to train on; {len(split.new_prompts)} of other prompts and "
        f"{len(split.new_labelers)} by other labelers to measure on"
    )
    if data.num_without_preference:
        progress.say(f"{data.num_without_preference} rankings prefer no response to another and are left out")
    if split.num_set_aside:
        progress.say(f"{split.num_set_aside} rankings are left out: a held-out labeler ranked the same prompt")
    if not data.demonstrations:
        progress.say("without --demonstrations the scores are not centred: only differences of scores mean anything")


def _finish(
    run: RunDirectory,
    model: PreTrainedModel,
    outcome: Outcome,
    data: _Data,
    config: RewardConfig,
    tokenizer_dir: Path,
    progress: Reporter,
) -> None:
    measured = agreement(model, data.split, micro_batch_tokens=config.micro_batch_tokens)
    if data.demonstrations:
        centre(model, data.demonstrations, micro_batch_tokens=config.micro_batch_tokens)
    run.publish(model, tokenizer_dir)
    draw_calibration(measured["calibration"], run.out / "calibration.png")
    run.tracker.log(outcome.num_steps, _tracked(measured))
    run.finish(
        {
            "stage": "reward",
            **data.counts,
            "loss": outcome.final_loss,
            **measured,
            "calibration": measured["calibration"].as_dict(),
            "is_centred": bool(data.demonstrations),
            "score_offset": model.config.score_offset,
            "num_steps": outcome.num_steps,
            "num_skipped_steps": outcome.num_skipped,
            "seconds": outcome.seconds,
            "config": config.model_dump(mode="json"),
        }
    )
    for line in _summary(measured):
        progress.say(line)
    progress.say(f"the reward model is in {run.out}")


def _tracked(measured: Mapping[str, Any]) -> dict[str, float]:
    groups = {name: measured[name] for name in ("new_prompts", "new_labelers") if measured[name]}
    return {
        **{f"held_out/accuracy_{name}": group["accuracy"] for name, group in groups.items()},
        "held_out/expected_calibration_error": measured["calibration"].expected_error,
    }


def _summary(measured: Mapping[str, Any]) -> list[str]:
    """What a person wants to know first."""
    lines = [_share("accuracy on prompts never trained on", measured["new_prompts"])]
    if measured["new_labelers"]:
        lines.append(_share("accuracy on labelers never trained on", measured["new_labelers"]))
    lines.append(f"expected calibration error {measured['calibration'].expected_error:.3f}")
    return lines


def _share(what: str, measured: Mapping[str, Any]) -> str:
    return (
        f"{what}: {measured['accuracy']:.1%} of pairs, 95% interval {measured['low']:.1%} to {measured['high']:.1%} "
        f"({measured['rankings']} rankings)"
    )
