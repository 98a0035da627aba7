"""The loop that all offline training shares.

    order the epoch -> batch -> micro-batches -> one gradient -> skip it or apply it -> log -> checkpoint -> evaluate

Where a training stands is its step number alone: the order of an epoch is a function of the epoch's number, and the
learning rate one of the step's. With weights, moments and the random state, that is all a checkpoint holds.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from onlinerlhf.core.errors import CheckpointError, NonFiniteLoss
from onlinerlhf.learner.tensors import copy_into, unique_tensors
from onlinerlhf.learner.training.config import TrainingConfig
from onlinerlhf.learner.training.objective import Batches, Objective, add, micro_batches
from onlinerlhf.learner.training.optimizers import adamw, load_moments, moments
from onlinerlhf.learner.training.progress import Reporter, Silence
from onlinerlhf.learner.training.run import RunDirectory
from onlinerlhf.learner.training.schedule import cosine

E = TypeVar("E")
MAX_SKIPPED_IN_A_ROW = 3
_FORMAT = 1
_LOSSES_KEPT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """What one epoch measured."""

    epoch: int
    """From 1."""
    train: dict[str, float]
    """Means over the epoch while it trained: loss, and what the objective reports."""
    evaluated: dict[str, float]
    """After it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished training."""

    num_steps: int
    num_skipped: int
    """Of these, steps that were left out because their loss or gradient was not finite."""
    final_loss: float
    """Mean of the last tenth of the steps."""
    epochs: tuple[EpochRecord, ...]
    seconds: float


@dataclass(slots=True)
class _State:
    """Everything but tensors that a checkpoint holds."""

    step: int = 0
    num_skipped: int = 0
    num_skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Of the epoch so far."""
    weight: float = 0.0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    model: PreTrainedModel,
    batches: Batches[E],
    objective: Objective[E],
    config: TrainingConfig,
    *,
    optimizers: Callable[[PreTrainedModel, TrainingConfig], Sequence[torch.optim.Optimizer]] = adamw,
    on_epoch: Callable[[int], Mapping[str, float]] | None = None,
    run: RunDirectory | None = None,
    progress: Reporter | None = None,
    name: str = "training",
) -> Outcome:
    """Train. With `run`, go on where its newest checkpoint stands, and end with the very same weights.

    `on_epoch` evaluates after an epoch (from 1), the model in evaluation mode and without gradients. Raises
    NonFiniteLoss after three steps in a row without a finite loss and gradient.
    """
    with torch.random.fork_rng(devices=_gpus(model)):
        torch.manual_seed(config.seed)
        trainer = _Trainer(model, batches, objective, config, list(optimizers(model, config)), on_epoch, run)
        if run:
            trainer.resume(run)
        return trainer.train(progress or Silence(), name)


class _Trainer(Generic[E]):
    def __init__(
        self,
        model: PreTrainedModel,
        batches: Batches[E],
        objective: Objective[E],
        config: TrainingConfig,
        optimizers: list[torch.optim.Optimizer],
        on_epoch: Callable[[int], Mapping[str, float]] | None,
        run: RunDirectory | None,
    ) -> None:
        self._model, self._batches, self._objective, self._config = model, batches, objective, config
        self._optimizers, self._on_epoch, self._run = optimizers, on_epoch, run
        self._num_steps = config.epochs * batches.steps_per_epoch
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self._state = _State()

    def train(self, progress: Reporter, name: str) -> Outcome:
        """All steps that are left."""
        state, per_epoch = self._state, self._batches.steps_per_epoch
        stage = progress.start(name, self._num_steps)
        if state.step:
            stage.advance(steps=state.step, detail="resumed")
        self._model.train()
        while state.step < self._num_steps:
            epoch, done = divmod(state.step, per_epoch)
            for batch in islice(self._batches.epoch(epoch), done, None):
                self._step(batch, epoch)
                stage.advance(detail=f"loss {_mean(state.losses[-20:]):.3f}" if state.losses else "")
                if state.step % self._config.checkpoint_every == 0 and state.step % per_epoch:
                    self._save()
            if state.step != (epoch + 1) * per_epoch:
                raise ValueError(f"epoch {epoch} has {state.step - epoch * per_epoch} batches, {per_epoch} announced")
            self._end_epoch(epoch)
        self._model.eval()
        return Outcome(
            num_steps=state.step,
            num_skipped=state.num_skipped,
            final_loss=_mean(state.losses[-max(1, self._num_steps // 10) :]),
            epochs=tuple(EpochRecord(**record) for record in state.history),
            seconds=round(state.seconds, 1),
        )

    def resume(self, run: RunDirectory) -> None:
        """Put the checkpoint into model, optimizers and random state."""
        saved, run.saved = run.saved, None  # Let go of it: it is as large as the model.
        if saved is None:
            return
        if saved.state.get("format") != _FORMAT:
            raise CheckpointError(f"{run.checkpoints.directory} was written by another version; choose another --out")
        try:
            copy_into(unique_tensors(self._model), saved.parts["model"])
            load_moments(self._optimizers, saved.parts.get("optimizers", {}))
        except (ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"{saved.path} does not fit the model: {error}") from error
        self._state = _State(**{key: value for key, value in saved.state.items() if key not in ("format", "random")})
        torch.set_rng_state(saved.parts["random"]["cpu"])
        if "device" in saved.parts["random"]:
            torch.cuda.set_rng_state(saved.parts["random"]["device"], self._model.device)

    def _step(self, batch: Sequence[E], epoch: int) -> None:
        state, began = self._state, time.monotonic()
        share = cosine(
            state.step,
            self._num_steps,
            warmup_share=self._config.warmup_share,
            final_share=self._config.final_share,
        )
        sums, weight = self._gradients(batch)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm))
        is_finite = all(map(_is_finite, (sums["loss"], norm)))
        if is_finite:
            self._apply(share)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        state.step += 1
        seconds = time.monotonic() - began
        state.seconds += seconds
        self._count(sums, weight, is_finite=is_finite)
        num_tokens = sum(map(self._objective.num_tokens, batch))
        speed = {"learning_rate": share * self._peaks[0][0], "tokens_per_second": num_tokens / max(seconds, 1e-9)}
        means = {key: value / weight for key, value in sums.items()}
        self._log(epoch, {**means, "grad_norm": norm, **speed} if is_finite else {"skipped": 1.0, **speed})
        if state.num_skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteLoss(self._trouble(means["loss"], norm))

    def _gradients(self, batch: Sequence[E]) -> tuple[dict[str, float], float]:
        """One gradient of the whole batch, however it is cut. Returns sums and what they are to be divided by."""
        weight = sum(map(self._objective.weight, batch))
        sums: dict[str, float] = {}
        for part in micro_batches(batch, self._objective, max_tokens=self._config.micro_batch_tokens):
            loss, numbers = self._objective.loss(part)
            (loss / weight).backward()
            add(sums, {"loss": float(loss.detach()), **numbers})
        return sums, weight

    def _apply(self, share: float) -> None:
        for optimizer, peaks in zip(self._optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = share * peak
            optimizer.step()

    def _count(self, sums: Mapping[str, float], weight: float, *, is_finite: bool) -> None:
        state = self._state
        if not is_finite:
            state.num_skipped += 1
            state.num_skipped_in_a_row += 1
            return
        state.num_skipped_in_a_row = 0
        add(state.sums, sums)
        state.weight += weight
        state.losses = [*state.losses[-_LOSSES_KEPT + 1 :], sums["loss"] / weight]

    def _end_epoch(self, epoch: int) -> None:
        state = self._state
        train = {key: value / state.weight for key, value in state.sums.items()}
        evaluated = self._evaluate(epoch + 1)
        state.history.append(asdict(EpochRecord(epoch=epoch + 1, train=train, evaluated=evaluated)))
        state.sums, state.weight = {}, 0.0
        if self._run:
            self._run.tracker.log(state.step, {f"epoch/{key}": value for key, value in evaluated.items()})
        self._save()

    def _evaluate(self, epoch: int) -> dict[str, float]:
        if self._on_epoch is None:
            return {}
        self._model.eval()
        # Whatever it draws, training goes on as it would have.
        with torch.no_grad(), torch.random.fork_rng(devices=_gpus(self._model)):
            evaluated = dict(self._on_epoch(epoch))
        self._model.train()
        return evaluated

    def _save(self) -> None:
        if self._run is None:
            return
        state = {"format": _FORMAT, **asdict(self._state)}
        randomness = {"cpu": torch.get_rng_state()}
        if _gpus(self._model):
            randomness["device"] = torch.cuda.get_rng_state(self._model.device)
        parts = {"model": unique_tensors(self._model), "optimizers": moments(self._optimizers), "random": randomness}
        self._run.checkpoints.save(self._state.step, lambda: (parts, state))

    def _log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        if self._run is None:
            return
        step = self._state.step
        try:
            self._run.steps.append({"step": step, "epoch": epoch + 1, **numbers})
        except OSError as error:
            raise CheckpointError(f"cannot write steps.jsonl: {error.strerror}") from error
        self._run.tracker.log(step, {f"train/{key}": value for key, value in numbers.items()})

    def _trouble(self, loss: float, norm: float) -> str:
        last = self._run.checkpoints.newest() if self._run else None
        where = f"the last good checkpoint is {last.path}" if last else "there is no checkpoint yet"
        return (
            f"{MAX_SKIPPED_IN_A_ROW} steps in a row were not finite (step {self._state.step}: loss {loss}, gradient "
            f"norm {norm}), so training stopped; {where}. A lower learning_rate is the usual cure, in another --out"
        )


def _gpus(model: PreTrainedModel) -> list[torch.device]:
    """Whose random state matters beside the CPU's."""
    return [model.device] if model.device.type == "cuda" else []


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
