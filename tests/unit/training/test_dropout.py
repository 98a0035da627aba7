"""Residual dropout acts on what attention and MLP add, in training only, on the families it knows."""

import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.training.dropout import residual_dropout
from onlinerlhf.models.policy import prepared
from unit.learner.tiny import tiny_policy

IDS = torch.tensor([[5, 6, 7, 8]])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS).logits
    return result


def test_it_acts_only_in_training() -> None:
    model = tiny_policy()
    expected = logits(model)

    with residual_dropout(model, 0.2):
        assert torch.equal(logits(model), expected)
        model.train()
        assert not torch.equal(logits(model), logits(model))
        model.eval()
        assert torch.equal(logits(model), expected)
    model.train()
    assert torch.equal(logits(model), expected)


def test_it_draws_from_the_seed() -> None:
    model = tiny_policy().train()
    with residual_dropout(model, 0.2):
        torch.manual_seed(1)
        first = logits(model)
        torch.manual_seed(1)
        assert torch.equal(logits(model), first)


def test_every_layer_drops_a_share_of_both_branches_and_scales_up_the_rest() -> None:
    model = tiny_policy().train()
    with residual_dropout(model, 0.25):
        for layer in model.model.layers:
            for branch in (layer.self_attn, layer.mlp):
                (hook,) = branch._forward_hooks.values()
                dropped = hook(branch, None, torch.ones(100, 100))
                assert 0.22 < float((dropped == 0).float().mean()) < 0.28
                assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]


def test_no_dropout_hooks_nothing() -> None:
    model = tiny_policy()
    with residual_dropout(model, 0.0):
        assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    "model",
    [
        LlamaForCausalLM(
            LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        ),
        GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)),
        Gemma2ForCausalLM(
            Gemma2Config(
                vocab_size=20,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
            )
        ),
    ],
    ids=["llama", "gpt2", "gemma2"],
)
def test_other_families_have_two_branches_a_layer_too(model: PreTrainedModel) -> None:
    prepared(model).train()
    with residual_dropout(model, 0.5):
        assert sum(len(module._forward_hooks) for module in model.modules()) == 4
        assert not torch.equal(logits(model), logits(model))


def test_an_unknown_architecture_is_refused_by_name() -> None:
    model = FalconForCausalLM(FalconConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    del model.transformer.h[0].mlp

    with pytest.raises(ConfigError, match="FalconForCausalLM has no attention and MLP"), residual_dropout(model, 0.2):
        pass
