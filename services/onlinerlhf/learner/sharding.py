"""How one learner is laid out over the processes that torchrun starts, by FSDP2.

Policy, value network and reference are sharded layer by layer: a layer's weights are gathered for its passes only, its
gradients are summed over the ranks, and each rank keeps and updates its share of weights, moments and averages.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from onlinerlhf.core.errors import ConfigError, StartupError
from onlinerlhf.learner.attempts import this_attempt
from onlinerlhf.learner.ranks import Ranks
from onlinerlhf.learner.recipe_config import RecipeConfig


@contextmanager
def meeting(config: RecipeConfig) -> Iterator[tuple[Ranks, Store | None]]:
    """All processes that torchrun started for this learner, and a store of theirs; without torchrun, this process.

    StartupError: some are absent.
    """
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield alone(config), None
        else:
            yield _all(config)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _all(config: RecipeConfig) -> tuple[Ranks, Store]:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    seconds = config.collective_timeout_seconds
    if torch.device(config.device).type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        everybodys, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
        store = this_attempt(everybodys, rank=rank, size=size, seconds=seconds)
        ranks = _joined(config, PrefixStore("ranks", store), rank=rank, size=size)
        distributed.barrier()
    except RuntimeError as error:
        text = str(error).partition("\n")[0]
        raise StartupError(f"rank {rank} did not meet all {size} within {seconds:.0f} s: {text}") from error
    return ranks, store


def alone(config: RecipeConfig) -> Ranks:
    """One process. For mixed precision it is sharded over itself: that is where the float32 weights are kept."""
    if config.compute_dtype == "float32":
        return Ranks()
    return _joined(config, distributed.HashStore(), rank=0, size=1)  # type: ignore[attr-defined]


def _joined(config: RecipeConfig, store: Store, *, rank: int, size: int) -> Ranks:
    kind = torch.device(config.device).type
    if not distributed.is_initialized():
        distributed.init_process_group(
            "nccl" if kind == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=config.collective_timeout_seconds),
        )
    return Ranks(rank=rank, size=size, mesh=init_device_mesh(kind, (size,)))


def shard(model: PreTrainedModel, config: RecipeConfig, ranks: Ranks) -> PreTrainedModel:
    """Lay a model out as configured, in place; its parameters are other objects from now on."""
    if ranks.mesh is None and not config.activation_checkpointing:
        return model.to(config.device)
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ConfigError(f"{type(model).__name__} does not say what its layers are, so it cannot be sharded by layer")
    if config.activation_checkpointing:
        for layer in layers:
            # Within the sharding's hooks, and without transformers' own switch, which works in training mode only.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    if ranks.mesh is None:
        return model.to(config.device)
    precision = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if config.compute_dtype == "bfloat16" else None, reduce_dtype=torch.float32
    )
    # A head with a bias gives one, and nobody writes into it.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for module in (*layers, model):
        # Nothing stays gathered after a pass: outside of passes there is one state of the weights.
        fully_shard(module, mesh=ranks.mesh, mp_policy=precision, reshard_after_forward=True)
    return model
