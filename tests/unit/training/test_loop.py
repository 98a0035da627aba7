"""The loop: one normalisation, the schedule, steps that are not finite, and going on after a kill."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.core.errors import CheckpointError, NonFiniteLoss
from onlinerlhf.learner.bootstrap.muon import muon_and_adamw
from onlinerlhf.learner.bootstrap.sizes import Rates
from onlinerlhf.learner.training.config import TrainingConfig
from onlinerlhf.learner.training.data import Example
from onlinerlhf.learner.training.dropout import residual_dropout
from onlinerlhf.learner.training.loop import Outcome, fit
from onlinerlhf.learner.training.objective import Batches, Objective, mean_loss, shuffled
from onlinerlhf.learner.training.progress import Silence
from onlinerlhf.learner.training.responses import response_objective
from onlinerlhf.learner.training.run import open_run
from onlinerlhf.learner.training.schedule import cosine
from padded_passes import token_logprobs
from unit.learner.tiny import random_rollouts, tiny_policy

EXAMPLES = [
    Example(prompt=list(each.prompt_ids), response=list(each.response_ids)) for each in random_rollouts(20, seed=3)
]


class Killed(Exception):
    """Stands for a process that is gone."""


class KillAfter(Silence):
    """Kills at the end of a step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        self.left -= steps
        if self.left == 0:
            raise Killed


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig(batch_size=6, learning_rate=1e-2, device="cpu").replaced(**changes)


def train(model: PreTrainedModel, config: TrainingConfig, **others: Any) -> Outcome:
    batches = shuffled(EXAMPLES, batch_size=config.batch_size, seed=config.seed)
    return fit(model, batches, response_objective(model), config, **others)


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_loss_falls_and_every_epoch_is_recorded() -> None:
    outcome = train(tiny_policy(), settings(epochs=5))

    losses = [record.train["loss"] for record in outcome.epochs]
    assert [record.epoch for record in outcome.epochs] == [1, 2, 3, 4, 5]
    assert losses[-1] < 0.7 * losses[0]
    assert outcome.num_steps == 5 * 4
    assert outcome.num_skipped == 0


def test_packed_responses_have_the_loss_of_padded_ones() -> None:
    model = tiny_policy()
    total, count = 0.0, 0
    for example in EXAMPLES:
        ids = torch.tensor([example.prompt + example.response])
        logprobs = token_logprobs(model, ids, torch.ones_like(ids))[0, len(example.prompt) - 1 :]
        total, count = total - float(logprobs.detach().sum()), count + len(logprobs)

    packed = mean_loss(model, EXAMPLES, response_objective(model), micro_batch_tokens=100)

    assert packed["loss"] == pytest.approx(total / count, rel=1e-5)


def test_how_a_batch_is_cut_does_not_change_the_gradient() -> None:
    whole, cut = tiny_policy(), tiny_policy()

    train(whole, settings(batch_size=20))
    train(cut, settings(batch_size=20, micro_batch_tokens=40))

    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_an_epoch_has_every_element_once_and_its_own_order() -> None:
    batches = shuffled(list(range(10)), batch_size=4, seed=1)

    first, second = (list(map(list, batches.epoch(number))) for number in (0, 1))

    assert [len(batch) for batch in first] == [4, 4, 2]
    for order in (first, second):
        assert sorted(element for batch in order for element in batch) == list(range(10))
    assert first != second
    assert first == list(map(list, batches.epoch(0)))
    assert batches.steps_per_epoch == 3


def test_the_learning_rate_warms_up_and_ends_at_a_tenth() -> None:
    assert cosine(0, 100) == pytest.approx(0.2)
    assert cosine(4, 100) == pytest.approx(1.0)
    assert cosine(100, 100) == pytest.approx(0.1)
    assert cosine(0, 100, warmup_share=0.0) == 1.0
    assert cosine(50, 100, warmup_share=0.0) == pytest.approx(0.55)
    assert cosine(100, 100, final_share=0.0) == pytest.approx(0.0)


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    train(tiny_policy(), settings())

    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


def test_fewer_batches_than_announced_are_an_error() -> None:
    model = tiny_policy()
    short = Batches(steps_per_epoch=3, epoch=lambda _: [EXAMPLES[:2]])

    with pytest.raises(ValueError, match="epoch 0 has 1 batches, 3 announced"):
        fit(model, short, response_objective(model), settings())


class Poisoned:
    """An objective whose loss, at some calls, is not finite."""

    def __init__(self, model: PreTrainedModel, *, bad_steps: set[int], value: float = float("nan")) -> None:
        inner = response_objective(model)
        self.calls = 0

        def loss(examples: Sequence[Example]) -> tuple[Tensor, Mapping[str, float]]:
            self.calls += 1
            total, numbers = inner.loss(examples)
            return total * (value if self.calls in bad_steps else 1.0), numbers

        self.objective: Objective[Example] = Objective(num_tokens=inner.num_tokens, weight=inner.weight, loss=loss)


def poisoned(tmp_path: Path, bad_steps: set[int], **changes: Any) -> tuple[PreTrainedModel, Outcome]:
    model, config = tiny_policy(), settings(epochs=2, **changes)
    objective = Poisoned(model, bad_steps=bad_steps).objective
    with open_run(tmp_path, command="test", config=config, inputs={}) as run:
        return model, fit(model, shuffled(EXAMPLES, batch_size=6, seed=0), objective, config, run=run)


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    model, outcome = poisoned(tmp_path, {2, 3, 5, 6})

    assert outcome.num_skipped == 4
    assert outcome.num_steps == 8
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    steps = (tmp_path / "steps.jsonl").read_text().splitlines()
    assert [number for number, line in enumerate(steps, 1) if '"skipped"' in line] == [2, 3, 5, 6]
    assert "NaN" not in "".join(steps)


def test_three_in_a_row_stop_the_training_and_name_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss) as caught:
        poisoned(tmp_path, {5, 6, 7})

    assert "3 steps in a row were not finite (step 7: loss nan" in str(caught.value)
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / 'step-00000004'}" in str(caught.value)
    assert "lower learning_rate" in str(caught.value)


def test_three_in_a_row_at_the_start_say_that_there_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match="there is no checkpoint yet"):
        poisoned(tmp_path, {1, 2, 3})


def test_a_gradient_that_is_not_finite_is_skipped_too() -> None:
    model, config = tiny_policy(), settings()
    before = weights(model)
    inner = response_objective(model)

    def loss(examples: Sequence[Example]) -> tuple[Tensor, Mapping[str, float]]:
        first = next(model.parameters())
        return inner.loss(examples)[0] + (first.sum() * 0).sqrt(), {}  # Its value is 0, its gradient is not a number.

    objective: Objective[Example] = Objective(num_tokens=inner.num_tokens, weight=inner.weight, loss=loss)
    with pytest.raises(NonFiniteLoss, match="gradient norm nan"):
        fit(model, shuffled(EXAMPLES, batch_size=6, seed=0), objective, config)
    assert same(weights(model), before)


@pytest.mark.parametrize("killed_after", [1, 3, 4, 6, 11])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_killed_training_goes_on_to_the_very_same_weights(tmp_path: Path, kind: str, killed_after: int) -> None:
    config = settings(epochs=3, checkpoint_every=2)
    others = {"optimizers": muon_and_adamw(Rates(matrices=1e-2, others=1e-2))} if kind == "muon" else {}

    def attempt(out: Path, progress: Silence) -> tuple[PreTrainedModel, Outcome]:
        model = tiny_policy()
        with residual_dropout(model, 0.2), open_run(out, command="test", config=config, inputs={}) as run:
            return model, train(model, config, run=run, progress=progress, **others)

    expected, uninterrupted = attempt(tmp_path / "whole", Silence())
    with pytest.raises(Killed):
        attempt(tmp_path / "killed", KillAfter(killed_after))
    resumed, outcome = attempt(tmp_path / "killed", Silence())

    assert same(weights(resumed), weights(expected))
    assert outcome.final_loss == uninterrupted.final_loss
    assert outcome.epochs == uninterrupted.epochs
    losses = [
        [line.split('"grad_norm"')[0] for line in (tmp_path / name / "steps.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1]


def test_a_checkpoint_cut_short_is_set_aside_and_the_one_before_it_used(tmp_path: Path) -> None:
    config = settings(epochs=3, checkpoint_every=2)

    def attempt(out: Path, progress: Silence) -> PreTrainedModel:
        model = tiny_policy()
        with open_run(out, command="test", config=config, inputs={}) as run:
            train(model, config, run=run, progress=progress)
        return model

    expected = attempt(tmp_path / "whole", Silence())
    with pytest.raises(Killed):
        attempt(tmp_path / "killed", KillAfter(7))
    newest = tmp_path / "killed" / "checkpoints" / "step-00000006" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1000])

    assert same(weights(attempt(tmp_path / "killed", Silence())), weights(expected))
    assert (tmp_path / "killed" / "checkpoints" / "step-00000006.broken").is_dir()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    config = settings(epochs=3)
    with open_run(tmp_path, command="test", config=config, inputs={}) as run, pytest.raises(Killed):
        train(tiny_policy(), config, run=run, progress=KillAfter(5))

    with open_run(tmp_path, command="test", config=config, inputs={}) as run:
        other = tiny_policy(tie_word_embeddings=False)
        with pytest.raises(CheckpointError, match="step-00000004 does not fit the model"):
            train(other, config, run=run)


def test_a_disk_that_is_full_is_one_clear_error(tmp_path: Path) -> None:
    config = settings(epochs=2)
    with open_run(tmp_path, command="test", config=config, inputs={}) as run:
        run.checkpoints.directory.write_text("in the way")
        with pytest.raises(CheckpointError, match="cannot write checkpoint"):
            train(tiny_policy(), config, run=run)


def test_evaluation_draws_numbers_without_changing_what_training_draws() -> None:
    plain, evaluated = tiny_policy(), tiny_policy()
    modes = []

    def on_epoch(epoch: int) -> Mapping[str, float]:
        modes.append((evaluated.training, torch.is_grad_enabled()))
        return {"drawn": float(torch.rand(1)), "epoch": epoch}

    with residual_dropout(plain, 0.5), residual_dropout(evaluated, 0.5):
        train(plain, settings(epochs=2))
        outcome = train(evaluated, settings(epochs=2), on_epoch=on_epoch)

    assert same(weights(plain), weights(evaluated))
    assert modes == [(False, False), (False, False)]
    assert [record.evaluated["epoch"] for record in outcome.epochs] == [1, 2]
