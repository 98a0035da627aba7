"""A packed pass gives what a padded pass gives."""

import random

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForTokenClassification,
)

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.models.packed import pack, packed_logits, packed_token_logprobs, packed_values
from onlinerlhf.models.policy import prepared
from padded_passes import token_logprobs

LENGTHS = (7, 1, 40, 12, 39, 3)


def _qwen3(**extra: object) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, **extra,
    )  # fmt: skip


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    )


def _gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    )


def _sequences() -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(64) for _ in range(length)] for length in LENGTHS]


def _padded() -> torch.Tensor:
    ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.int64)
    for row, sequence in enumerate(_sequences()):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    return ids


@pytest.mark.parametrize(
    "build", [lambda: Qwen3ForCausalLM(_qwen3()), _llama, _gpt_neox], ids=["qwen3", "llama", "neox"]
)
def test_packed_logits_and_gradients_are_those_of_the_padded_pass(build) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = prepared(build())
    packed = pack(_sequences())
    logits = packed_logits(model, packed, torch.arange(sum(LENGTHS)))
    is_real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    expected = model(input_ids=_padded(), use_cache=False).logits[is_real]
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)

    weights = torch.randn_like(logits)
    got = torch.autograd.grad((logits * weights).sum(), list(model.parameters()))
    wanted = torch.autograd.grad((expected * weights).sum(), list(model.parameters()))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_token_logprobs_of_marked_tokens_are_those_of_the_padded_pass() -> None:
    torch.manual_seed(0)
    model = prepared(Qwen3ForCausalLM(_qwen3(tie_word_embeddings=True)))
    packed = pack(_sequences())
    predicted = packed.position_ids[0] >= 2
    is_wanted = (torch.arange(1, max(LENGTHS)) >= 2) & (torch.arange(1, max(LENGTHS)) < torch.tensor(LENGTHS)[:, None])
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    for temperature in (1.0, 0.7):
        expected = token_logprobs(model, _padded(), mask.long(), temperature=temperature)[is_wanted]
        temperatures = torch.full_like(expected, temperature)
        found = packed_token_logprobs(model, packed, predicted, temperatures=temperatures)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_no_sequence_sees_another() -> None:
    torch.manual_seed(0)
    model = prepared(Qwen3ForTokenClassification(_qwen3(num_labels=1)))
    sequences = _sequences()
    before = packed_values(model, pack(sequences))
    sequences[2] = [63 - token for token in sequences[2]]
    after = packed_values(model, pack(sequences))
    assert torch.equal(before[:8], after[:8]) and torch.equal(before[48:], after[48:])
    assert not torch.allclose(before[8:48], after[8:48])


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack([[1, 2], []])


def test_a_window_shorter_than_a_sequence_is_refused() -> None:
    config = _qwen3(sliding_window=8, use_sliding_window=True, max_window_layers=0)
    model = prepared(Qwen3ForCausalLM(config))
    with pytest.raises(ConfigError, match="attends to 8 tokens only"):
        packed_logits(model, pack(_sequences()), torch.tensor([0]))
