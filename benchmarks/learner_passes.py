"""The passes of one PPO iteration and nothing else, packed as the learner packs or padded as a data loader pads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import PaddedBatch, pack_rows, split_minibatches
from onlinerlhf.learner.forward import MicroBatch, micro_batch
from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.models.packed import packed_logits, packed_values


@dataclass(frozen=True, slots=True)
class Models:
    """Policy, reference and value network."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    value: PreTrainedModel


class PackedPass:
    """Rows end to end."""

    def __init__(self, micro: MicroBatch) -> None:
        self._packed = micro.packed
        places = micro.predicted.nonzero()[:, 0]
        self._keep = places - 1
        self.targets = micro.packed.input_ids[0, places]

    def logits(self, model: PreTrainedModel) -> Tensor:
        """[M, V]: those that predict the response tokens."""
        return packed_logits(model, self._packed, self._keep)

    def values(self, model: PreTrainedModel) -> Tensor:
        """One a token."""
        return packed_values(model, self._packed)


class PaddedPass:
    """Rows beside each other, as wide as the longest."""

    def __init__(self, batch: PaddedBatch, rows: Sequence[int]) -> None:
        width = max(batch.lengths[row] for row in rows)
        self._input_ids = batch.input_ids[list(rows), :width]
        mask = batch.response_mask[list(rows), :width]
        self._keep = mask.roll(-1, dims=1)
        self.targets = self._input_ids[mask]

    def logits(self, model: PreTrainedModel) -> Tensor:
        """[M, V]: those that predict the response tokens."""
        hidden = model.get_decoder()(input_ids=self._input_ids, use_cache=False).last_hidden_state
        logits: Tensor = model.get_output_embeddings()(hidden[self._keep])
        return logits.float()

    def values(self, model: PreTrainedModel) -> Tensor:
        """One a position."""
        values: Tensor = model(input_ids=self._input_ids, use_cache=False).logits
        return values


Pass = PackedPass | PaddedPass


@dataclass(frozen=True, slots=True)
class Iteration:
    """The passes of one PPO iteration."""

    all_rows: Sequence[Pass]
    minibatches: Sequence[Sequence[Pass]]

    def run(self, models: Models) -> None:
        """All that must be passed, and no more."""
        with torch.no_grad():
            for rows in self.all_rows:
                rows.logits(models.policy)
                rows.logits(models.reference)
                rows.values(models.value)
        for minibatch in self.minibatches:
            for rows in minibatch:
                cross_entropy(rows.logits(models.policy), rows.targets).backward()  # type: ignore[no-untyped-call]
                rows.values(models.value).float().square().mean().backward()  # type: ignore[no-untyped-call]
            for model in (models.policy, models.value):
                model.zero_grad(set_to_none=True)


def packed_iteration(batch: PaddedBatch, config: PPOConfig) -> Iteration:
    """In the learner's micro-batches."""

    def passes(rows: Sequence[int]) -> list[PackedPass]:
        bins = pack_rows([batch.lengths[row] for row in rows], max_tokens=config.micro_batch_tokens)
        return [PackedPass(micro_batch(batch, [rows[place] for place in places])) for places in bins]

    return Iteration(passes(range(len(batch))), [passes(rows) for rows in _minibatches(batch, config)])


def padded_iteration(batch: PaddedBatch, config: PPOConfig, *, num_rows: int) -> Iteration:
    """In micro-batches of so many rows, in random order."""

    def passes(rows: Sequence[int]) -> list[PaddedPass]:
        return [PaddedPass(batch, rows[start : start + num_rows]) for start in range(0, len(rows), num_rows)]

    return Iteration(passes(range(len(batch))), [passes(rows) for rows in _minibatches(batch, config)])


def _minibatches(batch: PaddedBatch, config: PPOConfig) -> tuple[tuple[int, ...], ...]:
    generator = torch.Generator().manual_seed(config.seed)
    return split_minibatches(len(batch), config.num_minibatches, generator=generator)
