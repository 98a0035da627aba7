"""Builds a small base model, an SFT model and a reward model from nothing, in minutes and without a GPU.

Stages, each one directory: tokenizer -> base (pretraining) -> sft (demonstrations) -> reward (rankings).
"""

from onlinerlhf.learner.bootstrap.command import bootstrap_command
from onlinerlhf.learner.bootstrap.compose import bootstrap
from onlinerlhf.learner.bootstrap.tiny import tiny_models

__all__ = ["bootstrap", "bootstrap_command", "tiny_models"]
