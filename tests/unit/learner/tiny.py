"""Two-layer models with random weights, and rollouts over their vocabulary."""

import copy
import random

import torch
from transformers import AutoModelForTokenClassification, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from onlinerlhf.algorithms.batching import ScoredRollout
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.models.policy import prepared

VOCAB = 61


def tiny_config(*, tie_word_embeddings: bool = True) -> Qwen3Config:
    """About 15,000 parameters."""
    # On tensors this small a second thread only makes the first one wait.
    torch.set_num_threads(1)
    return Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=tie_word_embeddings,
        initializer_range=0.2,
        num_labels=1,
    )


def tiny_policy(seed: int = 0, *, tie_word_embeddings: bool = True) -> PreTrainedModel:
    torch.manual_seed(seed)
    return prepared(Qwen3ForCausalLM(tiny_config(tie_word_embeddings=tie_word_embeddings)))


def tiny_value(seed: int = 1) -> PreTrainedModel:
    torch.manual_seed(seed)
    return prepared(AutoModelForTokenClassification.from_config(tiny_config()))


def tiny_ppo(*, tie_word_embeddings: bool = True, **settings: object) -> PPO:
    """A PPO whose reference is the policy itself."""
    policy = tiny_policy(tie_word_embeddings=tie_word_embeddings)
    config = PPOConfig.model_validate(
        {"num_minibatches": 2, "learning_rate": 1e-3, "value_learning_rate": 1e-3, **settings}
    )
    value = tiny_value() if config.has_critic else None
    return PPO(policy=policy, reference=copy.deepcopy(policy), value=value, config=config)


def random_rollouts(count: int, *, seed: int = 0) -> list[ScoredRollout]:
    """Ragged prompts and responses; behaviour logprobs about those of a uniform policy."""
    draw = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCAB) for _ in range(draw.randint(low, high)))

    rollouts = []
    for _ in range(count):
        response = tokens(1, 12)
        rollouts.append(
            ScoredRollout(
                prompt_ids=tokens(2, 20),
                response_ids=response,
                behaviour_logprobs=tuple(draw.uniform(-5.0, -3.0) for _ in response),
                score=draw.gauss(0, 1),
            )
        )
    return rollouts
