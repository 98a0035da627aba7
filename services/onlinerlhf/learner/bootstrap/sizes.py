"""How large the models are and how long each stage trains."""

from dataclasses import dataclass

from transformers import Qwen3Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak learning rates of a stage."""

    matrices: float
    """Of Muon, for the matrices inside the layers."""
    others: float
    """Of AdamW, for embeddings, heads and norms. New special tokens start from nothing and need a high one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One scale of the bootstrap."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    tokenizer_documents: int
    pretrain_steps: int
    pretrain_batch: int
    """Documents a step."""
    pretrain_rates: Rates
    num_demonstrations: int
    sft_batch: int
    sft_epochs: int
    sft_rates: Rates
    num_rankings: int
    """Prompts whose responses are ranked, 4 to 9 responses each."""
    num_held_out_rankings: int
    """To measure on: so many by labelers trained on, so many by others."""
    ranking_batch: int
    """Prompts a step of reward model training."""
    reward_rates: Rates
    max_response_tokens: int


SIZES = {
    "demo": Size(
        vocab_size=1_024,
        hidden_size=128,
        num_layers=4,
        num_heads=4,
        tokenizer_documents=4_000,
        pretrain_steps=2_600,
        pretrain_batch=48,
        pretrain_rates=Rates(matrices=2e-2, others=3e-3),
        num_demonstrations=6_000,
        sft_batch=64,
        sft_epochs=2,
        # Twice as high gives no better answers and forgets three times as much of the pretraining text.
        sft_rates=Rates(matrices=1.5e-3, others=7e-4),
        num_rankings=8_000,
        num_held_out_rankings=600,
        ranking_batch=16,
        reward_rates=Rates(matrices=5e-3, others=1e-3),
        max_response_tokens=40,
    ),
    "tiny": Size(
        vocab_size=320,
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        tokenizer_documents=300,
        pretrain_steps=4,
        pretrain_batch=16,
        pretrain_rates=Rates(matrices=2e-2, others=3e-3),
        num_demonstrations=64,
        sft_batch=16,
        sft_epochs=1,
        sft_rates=Rates(matrices=3e-3, others=2e-3),
        num_rankings=8,
        num_held_out_rankings=8,
        ranking_batch=4,
        reward_rates=Rates(matrices=3e-3, others=1e-3),
        max_response_tokens=12,
    ),
}


def model_config(size: Size, *, vocab_size: int, eos: int, pad: int, tie_word_embeddings: bool) -> Qwen3Config:
    """A Qwen3-shaped model. Heads are 32 wide, the least that vLLM's CPU attention takes."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=3 * size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_heads // 2,
        head_dim=32,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        attention_dropout=0.0,
        tie_word_embeddings=tie_word_embeddings,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
    )
