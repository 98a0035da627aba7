"""Stage 1: a base model, pretrained on generated text."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3ForCausalLM

from onlinerlhf.learner.bootstrap.muon import muon_and_adamw
from onlinerlhf.learner.bootstrap.sizes import Size, model_config
from onlinerlhf.learner.training.config import TrainingConfig
from onlinerlhf.learner.training.loop import fit
from onlinerlhf.learner.training.objective import Batches, Objective
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.models.packed import pack, packed_token_logprobs
from onlinerlhf.models.policy import prepared
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.text import Document, documents

_LEAD_WEIGHT = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A document as tokens, of which the first `lead` belong to its lead."""

    ids: list[int]
    lead: int

    @property
    def weights(self) -> list[float]:
        """Of every token but the first, which nothing predicts."""
        num_leading = max(0, self.lead - 1)
        return [_LEAD_WEIGHT] * num_leading + [1.0] * (len(self.ids) - 1 - num_leading)


def new_model(tokenizer: PromptTokenizer, size: Size, *, tie_word_embeddings: bool, seed: int) -> Qwen3ForCausalLM:
    """A model with random weights."""
    torch.manual_seed(seed)
    config = model_config(
        size,
        vocab_size=tokenizer.vocab_size,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        tie_word_embeddings=tie_word_embeddings,
    )
    return prepared(Qwen3ForCausalLM(config))


def pretrain(model: PreTrainedModel, tokenizer: PromptTokenizer, size: Size, *, seed: int, progress: Reporter) -> float:
    """Trains on fresh documents; none is seen twice. Returns the final loss in nats a token, weighted.

    A token of a lead weighs a quarter of a token of a body: questions are drawn at random, and guessing their words
    is not what a small model's short training should go into.
    """

    def epoch(_: int) -> Iterator[list[Encoded]]:
        encoded = (_encode(document, tokenizer) for document in documents(seed=seed))
        return (list(itertools.islice(encoded, size.pretrain_batch)) for _ in range(size.pretrain_steps))

    outcome = fit(
        model,
        Batches(steps_per_epoch=size.pretrain_steps, epoch=epoch),
        _objective(model),
        TrainingConfig(epochs=1, batch_size=size.pretrain_batch, seed=seed, device="cpu"),
        optimizers=muon_and_adamw(size.pretrain_rates),
        progress=progress,
        name="pretraining",
    )
    return outcome.final_loss


def _objective(model: PreTrainedModel) -> Objective[Encoded]:
    def loss(batch: Sequence[Encoded]) -> tuple[Tensor, dict[str, float]]:
        packed = pack([document.ids for document in batch])
        is_predicted = torch.ones(sum(packed.lengths), dtype=torch.bool)
        is_predicted[list(packed.starts)] = False
        weights = torch.tensor([weight for document in batch for weight in document.weights])
        return -(packed_token_logprobs(model, packed, is_predicted) * weights).sum(), {}

    return Objective(
        num_tokens=lambda document: len(document.ids), weight=lambda document: sum(document.weights), loss=loss
    )


def _encode(document: Document, tokenizer: PromptTokenizer) -> Encoded:
    """A conversation is laid out by the chat template, so that its special tokens mean something before fine-tuning."""
    if document.is_chat:
        lead = tokenizer.encode_prompt(document.lead)
        return Encoded(ids=[*lead, *tokenizer.encode_text(document.body), tokenizer.eos_token_id], lead=len(lead))
    ids = [*tokenizer.encode_text(document.text), tokenizer.eos_token_id]
    return Encoded(ids=ids, lead=tokenizer.count(document.lead) if document.lead else 0)
