"""The processes that share one learner: a single one, or those that torchrun started.

Every rank holds the same batch, works on its share of the rows, and adds up what all found. So whatever is decided from
the sums is decided alike everywhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from onlinerlhf.algorithms.batching import pack_rows, share_rows
from onlinerlhf.core.errors import OnlineRLHFError, StartupError
from onlinerlhf.learner.tasks import Task, name_of
from onlinerlhf.learner.tensors import broadcast


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those that share the learner."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    """Over which models are sharded. None: one process has all of them."""

    @contextmanager
    def together(self, task: Task) -> Iterator[None]:
        """Around what all ranks do at the same time; rank 0 of several tells the others first. Fails as `in_step`."""
        with self.in_step(name_of(task)):
            self.announce(task)
            yield

    @contextmanager
    def in_step(self, what: str) -> Iterator[None]:
        """What every rank finds alike (NonFiniteLoss) passes.

        After any other failure the ranks may stand in different places, and sharded models be half gathered:
        StartupError, and the processes start again from a checkpoint.
        """
        try:
            yield
        except OnlineRLHFError:
            raise
        except Exception as error:
            if self.mesh is None:
                raise
            text = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise StartupError(f"rank {self.rank} of {self.size} failed to {what}: {text}") from error

    def announce(self, task: Task) -> None:
        """Nothing where there is nobody to tell."""

    def spread(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor on every rank; those without its content give one of its shape on the meta device."""
        if self.mesh is None or self.size == 1:
            return tensor
        device = self.mesh.device_type
        return broadcast(torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device))

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor, added up over all ranks in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def micro_batches(self, lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
        """This rank's rows in micro-batches; as many on every rank, the last ones empty where there are fewer rows.

        Sharded models run every pass together, so no rank may make one more than another.
        """
        all_bins = []
        for rows in share_rows(lengths, self.size):
            packed = pack_rows([lengths[row] for row in rows], max_tokens=max_tokens)
            all_bins.append([[rows[place] for place in places] for places in packed])
        mine = all_bins[self.rank]
        return mine + [[] for _ in range(max(map(len, all_bins)) - len(mine))]


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded: every rank must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def all_finite(tensors: Sequence[Tensor], ranks: Ranks) -> bool:
    """Whether no rank holds NaN or infinity."""
    num_broken = sum((~local(tensor).isfinite()).any().to(torch.float32) for tensor in tensors)
    return float(ranks.sum(torch.as_tensor(num_broken))) == 0.0
