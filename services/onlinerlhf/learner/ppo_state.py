"""Everything that makes one PPO differ from another that started alike, as whole tensors and plain numbers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onlinerlhf.learner.lora import adapter_scales, merged
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ranks import whole
from onlinerlhf.learner.tasks import Export, Gather, Restore
from onlinerlhf.learner.tensors import Parts, copy_into, refuse_others, trained_tensors, unique_tensors


def gather(ppo: PPO) -> Parts:
    """What was trained, moments and averages by part and name, on the CPU.

    With several ranks, all of them call it, and rank 0 gets it.
    """
    with ppo.ranks.together(Gather()):
        return {part: _whole(tensors, ppo) for part, tensors in _live(ppo).items() if tensors}


def exported(ppo: PPO, *, averaged: bool = False) -> dict[str, Tensor]:
    """The policy's weights, or their moving average, on the CPU under the names of a transformers checkpoint.

    Tied weights come once, under the first of their names; adapters are merged into what they sit on. ValueError: no
    average is kept. Not always copies: they hold until the next step. With several ranks, all of them call it, and rank
    0 gets it.
    """
    if averaged and ppo.ema is None:
        raise ValueError("no moving average is kept (ema_decay is none)")
    with ppo.ranks.together(Export(averaged)):
        tensors = unique_tensors(ppo.policy)
        if averaged:
            tensors |= _averages(ppo)
        found = _whole(tensors, ppo)
        return merged(found, adapter_scales(ppo.policy)) if found else {}


def scalars(ppo: PPO) -> dict[str, Any]:
    """The rest: JSON."""
    return {
        "num_steps": ppo.num_steps,
        "kl_coef": ppo.kl_coef,
        "base": ppo.base,
        "mix_position": ppo.mix.position if ppo.mix else None,
        "generator": bytes(ppo.generator.get_state().tolist()).hex(),
    }


def restore(ppo: PPO, parts: Parts, numbers: Mapping[str, Any]) -> None:
    """The inverse of `gather` and `scalars`. Raises ValueError or KeyError for those of another configuration."""
    _refuse_others(ppo, parts, numbers)
    with ppo.ranks.together(Restore(parts, numbers)):
        spread = ppo.ranks.spread
        for part, live in _weights(_live(ppo)).items():
            copy_into(live, parts[part], spread)
        ppo.policy_optimizer.load_tensors(parts.get("policy_optimizer", {}), spread)
        if ppo.value_optimizer:
            ppo.value_optimizer.load_tensors(parts.get("value_optimizer", {}), spread)
        ppo.num_steps, ppo.kl_coef = int(numbers["num_steps"]), float(numbers["kl_coef"])
        if ppo.mix:
            ppo.mix.position = int(numbers["mix_position"])
        ppo.generator.set_state(torch.tensor(list(bytes.fromhex(numbers["generator"])), dtype=torch.uint8))


def _refuse_others(ppo: PPO, parts: Parts, numbers: Mapping[str, Any]) -> None:
    if numbers["base"] != ppo.base:
        raise ValueError(f"it was made with {_named(numbers['base'])}; configured are {_named(ppo.base)}")
    if bool(ppo.mix) != (numbers["mix_position"] is not None):
        raise ValueError(f"it was made {'without' if ppo.mix else 'with'} a pretraining mix")
    expected, found = _weights(_live(ppo)), _weights(parts)
    if expected.keys() != found.keys():
        raise ValueError(f"it holds {', '.join(sorted(found))}; expected {', '.join(sorted(expected))}")
    for part, live in expected.items():
        refuse_others(live, found[part])
    ppo.policy_optimizer.refuse_others(parts.get("policy_optimizer", {}))
    if ppo.value_optimizer:
        ppo.value_optimizer.refuse_others(parts.get("value_optimizer", {}))


def _named(base: str | None) -> str:
    return "whole weights" if base is None else f"adapters of {base}"


def _weights(parts: Parts) -> Parts:
    return {part: tensors for part, tensors in parts.items() if not part.endswith("_optimizer")}


def _live(ppo: PPO) -> Parts:
    parts = {"policy": trained_tensors(ppo.policy), "policy_optimizer": ppo.policy_optimizer.tensors()}
    if ppo.value is not None and ppo.value_optimizer is not None:
        parts |= {"value": trained_tensors(ppo.value), "value_optimizer": ppo.value_optimizer.tensors()}
    if ppo.ema:
        parts["ema"] = _averages(ppo)
    return parts


def _averages(ppo: PPO) -> dict[str, Tensor]:
    return dict(zip(ppo.policy_optimizer.names, ppo.ema.shadow, strict=True)) if ppo.ema else {}


def _whole(tensors: Mapping[str, Tensor], ppo: PPO) -> dict[str, Tensor]:
    """On rank 0; the others help to gather one tensor after another and keep none."""
    found = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor)
        if ppo.ranks.rank == 0:
            found[name] = gathered.cpu()
    return found
