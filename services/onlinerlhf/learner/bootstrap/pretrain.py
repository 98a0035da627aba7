"""Stage 1: a base model, pretrained on generated text."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import Qwen3ForCausalLM

from onlinerlhf.learner.bootstrap.fit import fit, pad_right
from onlinerlhf.learner.bootstrap.progress import Progress
from onlinerlhf.learner.bootstrap.sizes import Size, model_config
from onlinerlhf.models.policy import prepared, token_logprobs
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.text import Document, documents

_BATCHES_SORTED_TOGETHER = 20
_LEAD_WEIGHT = 0.25


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


def pretrain(
    model: Qwen3ForCausalLM, tokenizer: PromptTokenizer, size: Size, *, seed: int, progress: Progress
) -> float:
    """Trains on fresh documents; none is seen twice. Returns the final loss in nats a token, weighted.

    A token of a lead weighs a quarter of a token of a body: questions are drawn at random, and guessing their words
    is not what a small model's short training should go into.
    """

    def loss_of(batch: list[Encoded]) -> torch.Tensor:
        ids, mask = pad_right([document.ids for document in batch], tokenizer.pad_token_id)
        weights = mask.float()
        for row, document in enumerate(batch):
            weights[row, : document.lead] = _LEAD_WEIGHT
        weights = weights[:, 1:]
        return -(token_logprobs(model, ids, mask) * weights).sum() / weights.sum()

    encoded = (_encode(document, tokenizer) for document in documents(seed=seed))
    return fit(
        model,
        _batches(encoded, size, seed=seed),
        loss_of,
        num_steps=size.pretrain_steps,
        rates=size.pretrain_rates,
        progress=progress,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A document as tokens, of which the first `lead` belong to its lead."""

    ids: list[int]
    lead: int


def _encode(document: Document, tokenizer: PromptTokenizer) -> Encoded:
    """A conversation is laid out by the chat template, so that its special tokens mean something before fine-tuning."""
    if document.is_chat:
        lead = tokenizer.encode_prompt(document.lead)
        return Encoded(ids=[*lead, *tokenizer.encode_text(document.body), tokenizer.eos_token_id], lead=len(lead))
    ids = [*tokenizer.encode_text(document.text), tokenizer.eos_token_id]
    return Encoded(ids=ids, lead=tokenizer.count(document.lead) if document.lead else 0)


def _batches(encoded: Iterator[Encoded], size: Size, *, seed: int) -> Iterator[list[Encoded]]:
    """Batches of documents of like length, in random order, so that little of a batch is padding."""
    rng = random.Random(seed)
    left = size.pretrain_steps
    while left > 0:
        count = min(left, _BATCHES_SORTED_TOGETHER)
        pool = sorted(itertools.islice(encoded, count * size.pretrain_batch), key=lambda document: len(document.ids))
        batches = [pool[at : at + size.pretrain_batch] for at in range(0, len(pool), size.pretrain_batch)]
        rng.shuffle(batches)
        yield from batches
        left -= count
