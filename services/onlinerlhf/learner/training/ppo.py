"""`onlinerlhf train ppo`: PPO, PPO-ptx, RLOO and GRPO from a file of prompts, without a platform.

    prompts -> sample by the policy as it is now -> score -> PPO.step -> log -> checkpoint

The step is the online learner's own. Weights, moments, averages and the step's number are all that a checkpoint holds:
prompts and draws are functions of the number, so a training that was stopped ends with the very same weights.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from onlinerlhf.core.errors import CheckpointError, ConfigError, NonFiniteLoss
from onlinerlhf.learner.build import build_ppo
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import exported, gather, restore, scalars
from onlinerlhf.learner.sampling import Sampling
from onlinerlhf.learner.sharding import meeting
from onlinerlhf.learner.tensors import copy_into, unique_tensors
from onlinerlhf.learner.training.config import found_device, load_training_config
from onlinerlhf.learner.training.data import PromptRow, load_prompts
from onlinerlhf.learner.training.episodes import EpisodeSource
from onlinerlhf.learner.training.interruption import asked_to_stop
from onlinerlhf.learner.training.match import check_same_vocabulary, check_tokenizer
from onlinerlhf.learner.training.ppo_plots import draw_steps
from onlinerlhf.learner.training.ppo_result import TrainedPPO, as_report, read_steps, read_trained
from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig
from onlinerlhf.learner.training.progress import Reporter, Silence, reporter
from onlinerlhf.learner.training.run import RunDirectory, open_run
from onlinerlhf.models.policy import load_policy, save_model
from onlinerlhf.models.scalar import load_reward_model
from onlinerlhf.models.tokenizer import PromptTokenizer

MAX_SKIPPED_IN_A_ROW = 3
_FORMAT = 1
OnStep = Callable[[PPO, Mapping[str, float]], Mapping[str, float] | None]


@dataclass(slots=True)
class _State:
    """Everything but the PPO itself that a checkpoint holds."""

    step: int = 0
    """Done, skipped ones counted."""
    num_skipped: int = 0
    num_skipped_in_a_row: int = 0


def ppo_command(
    *,
    policy: Path,
    reward: Path,
    prompts: tuple[Path, ...],
    out: Path,
    ptx_data: Path | None,
    config: Path | None,
    settings: Sequence[str],
) -> None:
    """The command line's way in."""
    logging.disable_progress_bar()
    places = [f"policy_dir={policy}", f"reward_dir={reward}", f"output_dir={out}"]
    places += [f"prompts={json.dumps([str(path) for path in prompts])}"]
    places += [f"ptx_data={ptx_data}"] if ptx_data else []
    loaded = load_training_config(PPOTrainConfig, path=config, settings=[*settings, *places])
    with reporter() as progress:
        train_ppo(loaded, progress=progress)


def train_ppo(config: PPOTrainConfig, *, progress: Reporter | None = None, on_step: OnStep | None = None) -> TrainedPPO:
    """Train, or go on with a training that stopped, and leave a model directory with its report in `output_dir`.

    `on_step` is called after each step that was applied, with the PPO and the step's numbers; `step` counts from 1. The
    numbers it returns are kept and logged beside them. A step that was not in the last checkpoint is done again.
    Raises NonFiniteLoss after three steps in a row with something that is not finite.
    """
    progress = progress or Silence()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "train ppo is one process, WORLD_SIZE says more: start it without torchrun; the online learner "
            "(python -m onlinerlhf.learner) is what spreads over processes"
        )
    config = config.replaced(device=str(found_device(config.device)))
    tokenizer = PromptTokenizer.load(config.policy_dir)
    prompts = load_prompts(config.prompts, tokenizer, max_prompt_tokens=config.max_prompt_tokens)
    _check_models(config, tokenizer, prompts)
    with open_run(config.output_dir, command="ppo", config=config, inputs=_inputs(config)) as run:
        if run.is_complete:
            progress.say(f"{run.out} is complete; its report is {run.report_path}")
            return read_trained(run.out)
        with meeting(config) as (ranks, _):
            ppo = build_ppo(config, ranks)
            trainer = _Trainer(config, ppo, _source(config, tokenizer, prompts), run, progress, on_step)
            trainer.resume()
            trainer.train(config.num_steps(len(prompts)))
            return _finish(ppo, config, run, trainer.state, num_prompts=len(prompts), progress=progress)


class _Trainer:
    def __init__(
        self,
        config: PPOTrainConfig,
        ppo: PPO,
        source: EpisodeSource,
        run: RunDirectory,
        progress: Reporter,
        on_step: OnStep | None,
    ) -> None:
        self._config, self._ppo, self._source, self._run = config, ppo, source, run
        self._progress, self._on_step = progress, on_step
        self._last: Path | None = None
        self.state = _State()

    def resume(self) -> None:
        """Put the newest checkpoint, if there is one, into the PPO."""
        saved, self._run.saved = self._run.saved, None  # Let go of it: it is larger than the model.
        if saved is None:
            return
        if saved.state.get("format") != _FORMAT:
            raise CheckpointError(f"{saved.path} was written by another version; choose another --out")
        try:
            restore(self._ppo, {name: dict(part) for name, part in saved.parts.items()}, saved.state["ppo"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{saved.path} does not fit the models: {error}") from error
        self.state = _State(**{key: saved.state[key] for key in asdict(self.state)})
        self._last = saved.path
        self._progress.say(f"goes on from {saved.path}")

    def train(self, num_steps: int) -> None:
        """All steps that are left. Ctrl-C saves after the step at hand, and is raised then."""
        state = self.state
        stage = self._progress.start("PPO", num_steps)
        if state.step:
            stage.advance(steps=state.step, detail="resumed")
        with asked_to_stop(lambda: self._progress.say("stops and saves after this step; again: stops at once")) as stop:
            while state.step < num_steps:
                stage.advance(detail=self._step())
                if state.step % self._config.checkpoint_every == 0 or state.step == num_steps or stop.is_set():
                    self._save()
                if stop.is_set() and state.step < num_steps:
                    self._progress.say(f"stopped after step {state.step} of {num_steps}; {self._where()}")
                    raise KeyboardInterrupt

    def _step(self) -> str:
        """One step, applied or skipped, and logged. Returns what to show of it."""
        state = self.state
        try:
            numbers = self._learn(state.step)
            state.num_skipped_in_a_row = 0
        except NonFiniteLoss as error:
            numbers, trouble = {"skipped": 1.0}, str(error)
            state.num_skipped += 1
            state.num_skipped_in_a_row += 1
            self._progress.say(f"step {state.step + 1} is skipped: {trouble}")
        state.step += 1
        numbers = {"step": state.step, **numbers}
        if "skipped" not in numbers and self._on_step:
            numbers |= self._on_step(self._ppo, numbers) or {}
        self._log(numbers)
        if state.num_skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteLoss(
                f"{MAX_SKIPPED_IN_A_ROW} steps in a row were not finite (step {state.step}: {trouble}), so training "
                f"stopped; {self._where()}. {self._run.out / 'steps.jsonl'} shows how it came to this; a lower "
                "learning_rate or value_learning_rate is the usual cure, in another --out"
            )
        if "skipped" in numbers:
            return "skipped"
        return f"reward {numbers['score_mean']:.3f}, KL {numbers['kl_per_sequence_nats']:.2f} nats"

    def _learn(self, step: int) -> dict[str, float]:
        """Sample, score, learn. Raises NonFiniteLoss, and everything is as it was before."""
        episodes = self._source.make(self._ppo.policy, step)
        began = monotonic()
        metrics = asdict(self._ppo.step(episodes.rollouts))
        return {
            **{name: number for name, number in metrics.items() if number is not None},
            "sampling_seconds": episodes.sampling_seconds,
            "scoring_seconds": episodes.scoring_seconds,
            "learning_seconds": monotonic() - began,
        }

    def _log(self, numbers: Mapping[str, float]) -> None:
        try:
            self._run.steps.append(numbers)
        except OSError as error:
            raise CheckpointError(f"cannot write steps.jsonl: {error.strerror}; {self._where()}") from error
        shown = {f"train/{name}": number for name, number in numbers.items() if name != "step"}
        self._run.tracker.log(self.state.step, shown)

    def _save(self) -> None:
        state = {"format": _FORMAT, **asdict(self.state), "ppo": scalars(self._ppo)}
        try:
            self._last = self._run.checkpoints.save(self.state.step, lambda: (gather(self._ppo), state))
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {self._where()}") from error

    def _where(self) -> str:
        if self._last is None:
            return "there is no checkpoint yet: the same command begins again"
        return f"the last good checkpoint is {self._last}, from where the same command goes on"


def _inputs(config: PPOTrainConfig) -> dict[str, Path | Sequence[Path] | None]:
    """What the result depends on."""
    return {
        "policy": config.policy_dir,
        "reward": config.reward_dir,
        "reference": config.reference_dir,
        "prompts": config.prompts,
        "ptx-data": config.ptx_data,
    }


def _check_models(config: PPOTrainConfig, tokenizer: PromptTokenizer, prompts: Sequence[PromptRow]) -> None:
    """Whether models, tokenizer and prompts fit together, by the models' configs: before anything is written."""
    check_same_vocabulary(config.policy_dir, config.reward_dir)
    longest = max(len(row.ids) for row in prompts)
    for path in (config.policy_dir, config.reward_dir):
        try:
            described = AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the model's config in {path}: {error}") from error
        limit = getattr(described, "max_position_embeddings", None)
        if limit is not None and longest + config.max_response_tokens > limit:
            raise ConfigError(
                f"the longest prompt has {longest} tokens and a response up to {config.max_response_tokens}, "
                f"but {path} takes {limit} together: set max_response_tokens to {limit - longest} or less"
            )
        if path == config.policy_dir:
            check_tokenizer(described, tokenizer, path)


def _source(config: PPOTrainConfig, tokenizer: PromptTokenizer, prompts: Sequence[PromptRow]) -> EpisodeSource:
    return EpisodeSource(
        prompts=prompts,
        reward_model=load_reward_model(config.reward_dir).to(config.device),
        sampling=Sampling(
            max_tokens=config.max_response_tokens,
            eos_token_id=tokenizer.eos_token_id,
            num_responses=config.num_responses,
            temperature=config.temperature,
            batch_size=config.sampled_together,
        ),
        prompts_per_step=config.prompts_per_step,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=config.seed,
    )


def _finish(
    ppo: PPO, config: PPOTrainConfig, run: RunDirectory, state: _State, *, num_prompts: int, progress: Reporter
) -> TrainedPPO:
    """The policy becomes the result."""
    try:
        if ppo.ema:
            save_model(_exported(ppo, config, averaged=True), config.policy_dir, run.out / "ema")
        run.publish(_exported(ppo, config, averaged=False), config.policy_dir)
    except OSError as error:
        problem = f"{run.out}: {error.strerror or error}"
        raise CheckpointError(f"cannot write the model to {problem}; the same command tries again") from error
    history = read_steps(run.out)
    draw_steps(history, run.out / "training.png")
    counts = {"prompts": num_prompts, "num_steps": state.step, "num_skipped_steps": state.num_skipped}
    run.finish(as_report(history, counts=counts, config=config))
    progress.say(f"the policy is in {run.out}, its report in {run.report_path}")
    return read_trained(run.out)


def _exported(ppo: PPO, config: PPOTrainConfig, *, averaged: bool) -> PreTrainedModel:
    """The policy as a plain model: whole, adapters merged, on the CPU."""
    model = load_policy(config.policy_dir)
    copy_into(unique_tensors(model), exported(ppo, averaged=averaged))
    return model
