"""`onlinerlhf train sft`: supervised fine-tuning as InstructGPT's.

The loss is on the responses only; after each epoch the model answers validation prompts, a reward model scores the
answers, and the epoch with the best score is kept.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from onlinerlhf.learner.training.config import load_training_config
from onlinerlhf.learner.training.data import Example, load_demonstrations
from onlinerlhf.learner.training.dropout import residual_dropout
from onlinerlhf.learner.training.holdout import hold_out
from onlinerlhf.learner.training.loop import Outcome, fit
from onlinerlhf.learner.training.match import check_lengths, check_same_vocabulary, check_tokenizer
from onlinerlhf.learner.training.objective import mean_loss, shuffled
from onlinerlhf.learner.training.plots import draw_epochs
from onlinerlhf.learner.training.progress import Reporter, reporter
from onlinerlhf.learner.training.responses import ResponseScorer, response_objective, some_prompts
from onlinerlhf.learner.training.run import RunDirectory, open_run
from onlinerlhf.learner.training.selection import REWARD_SCORE, VALIDATION_LOSS, chosen_epoch, reason
from onlinerlhf.learner.training.sft_config import SFTConfig
from onlinerlhf.models.policy import load_policy, save_model
from onlinerlhf.models.scalar import load_reward_model
from onlinerlhf.models.tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTInputs:
    """What is trained, on what, and where to."""

    model: Path
    data: tuple[Path, ...]
    out: Path
    validation: Path | None = None
    """Demonstrations to validate on; None: a share of `data`."""
    reward: Path | None = None
    """Reward model that chooses the epoch; None: the validation loss does."""

    @property
    def files(self) -> dict[str, Path | Sequence[Path] | None]:
        """What the result depends on."""
        return {"model": self.model, "data": self.data, "validation": self.validation, "reward": self.reward}


def sft_command(*, config: Path | None, settings: Sequence[str], **inputs: Any) -> None:
    """The command line's way in."""
    logging.disable_progress_bar()
    with reporter() as progress:
        train_sft(SFTInputs(**inputs), load_training_config(SFTConfig, path=config, settings=settings), progress)


def train_sft(inputs: SFTInputs, config: SFTConfig, progress: Reporter) -> None:
    """Train, or go on with a training that stopped, and leave a model directory with its report in `inputs.out`."""
    tokenizer = PromptTokenizer.load(inputs.model)
    train, validation = _examples(inputs, config, tokenizer, progress)
    if inputs.reward:
        check_same_vocabulary(inputs.model, inputs.reward)
    model = load_policy(inputs.model)
    check_tokenizer(model.config, tokenizer, inputs.model)
    check_lengths(model.config, max(example.num_tokens for example in [*train, *validation]), inputs.model)
    model.to(config.torch_device)
    scorer = _scorer(inputs, config, tokenizer, validation)
    with (
        residual_dropout(model, config.residual_dropout),
        open_run(inputs.out, command="sft", config=config, inputs=inputs.files) as run,
    ):
        if run.is_complete:
            progress.say(f"{inputs.out} is complete; its report is {run.report_path}")
            return
        progress.say(f"{len(train)} demonstrations to train on, {len(validation)} to validate on")
        if scorer is None:
            progress.say("without --reward the epoch with the lowest validation loss is kept")
        outcome = fit(
            model,
            shuffled(train, batch_size=config.batch_size, seed=config.seed),
            response_objective(model),
            config,
            on_epoch=_evaluation(model, validation, scorer, config, run, inputs.model, progress),
            run=run,
            progress=progress,
            name="fine-tuning",
        )
        _finish(run, outcome, config, {"demonstrations": len(train), "validation": len(validation)}, progress)


def _examples(
    inputs: SFTInputs, config: SFTConfig, tokenizer: PromptTokenizer, progress: Reporter
) -> tuple[list[Example], list[Example]]:
    """To train on, and to validate on."""
    limits = {"max_prompt_tokens": config.max_prompt_tokens, "max_response_tokens": config.max_response_tokens}
    examples = load_demonstrations(inputs.data, tokenizer, **limits)
    if inputs.validation is None:
        return hold_out(examples, _owner, share=config.validation_share, seed=config.seed)
    validation = load_demonstrations(inputs.validation, tokenizer, **limits)
    num_shared = len({_owner(example) for example in examples} & {_owner(example) for example in validation})
    if num_shared:
        what = "users" if validation[0].user else "prompts"
        progress.say(f"{num_shared} {what} are in training and validation data: validation will look too good")
    return examples, validation


def _owner(example: Example) -> str:
    """Users are split, never one user's prompts; where nobody is named, prompts are."""
    return example.user or f"prompt {example.prompt}"


def _scorer(
    inputs: SFTInputs, config: SFTConfig, tokenizer: PromptTokenizer, validation: Sequence[Example]
) -> ResponseScorer | None:
    if inputs.reward is None:
        return None
    return ResponseScorer(
        reward_model=load_reward_model(inputs.reward).to(config.torch_device),
        tokenizer=tokenizer,
        prompts=some_prompts(validation, config.num_validation_prompts, seed=config.seed),
        max_response_tokens=config.max_response_tokens,
        sampled_together=config.sampled_together,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=config.seed,
    )


def _evaluation(
    model: PreTrainedModel,
    validation: Sequence[Example],
    scorer: ResponseScorer | None,
    config: SFTConfig,
    run: RunDirectory,
    tokenizer_dir: Path,
    progress: Reporter,
) -> Callable[[int], Mapping[str, float]]:
    """Measures an epoch, and keeps its model if it is the best so far."""
    earlier = run.saved.state["history"] if run.saved else []
    evaluated: list[Mapping[str, float]] = [record["evaluated"] for record in earlier]

    def evaluate(epoch: int) -> Mapping[str, float]:
        objective = response_objective(model)
        loss = mean_loss(model, validation, objective, micro_batch_tokens=config.micro_batch_tokens)["loss"]
        numbers = {VALIDATION_LOSS: loss} | ({REWARD_SCORE: scorer.score(model)} if scorer else {})
        evaluated.append(numbers)
        if chosen_epoch(evaluated) == epoch:
            save_model(model, tokenizer_dir, run.best)
        shown = ", ".join(f"{name.replace('_', ' ')} {number:.4f}" for name, number in numbers.items())
        progress.say(f"epoch {epoch}: {shown}")
        return numbers

    return evaluate


def _finish(
    run: RunDirectory, outcome: Outcome, config: SFTConfig, counts: Mapping[str, int], progress: Reporter
) -> None:
    """The chosen epoch's model becomes the result."""
    chosen = chosen_epoch([record.evaluated for record in outcome.epochs])
    epochs = [
        {
            "epoch": record.epoch,
            "train_loss": record.train.get("loss", math.nan),
            **record.evaluated,
            "chosen": record.epoch == chosen,
        }
        for record in outcome.epochs
    ]
    because = reason(outcome.epochs[chosen - 1].evaluated)
    run.publish_saved(run.best)
    draw_epochs(epochs, run.out / "epochs.png")
    run.finish(
        {
            "stage": "sft",
            **counts,
            "chosen_epoch": chosen,
            "chosen_by": because,
            "epochs": epochs,
            "num_steps": outcome.num_steps,
            "num_skipped_steps": outcome.num_skipped,
            "seconds": outcome.seconds,
            "config": config.model_dump(mode="json"),
        }
    )
    progress.say(f"epoch {chosen} of {len(epochs)} is kept: {because}")
    progress.say(f"the model is in {run.out}")
