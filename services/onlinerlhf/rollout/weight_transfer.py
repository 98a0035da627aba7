"""Runs inside vLLM's worker process: loads a staged, verified, complete safetensors file into the running model.

    start_weight_update    layers go back to checkpoint format (on the CPU they keep packed weights only)
    update_weights(path)   every tensor of the file through the model's own loader, which fuses q, k, v and gate, up
    finish_weight_update   layers are packed again, then what shares an embedding's weight

The file is always complete: vLLM repacks a fused layer only when all its parts arrive, so a delta is put together with
its parent before it comes here (see staging.py).
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

# It warns, at every update, of layers that have nothing of their own to load (a tied head, a rotary table).
# `receive_weights` checks for what is really missing.
logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)


@dataclass
class StagedInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class StagedUpdateInfo(WeightTransferUpdateInfo):
    """Where the staged version lies."""

    path: str


class StagedFileTransferEngine(WeightTransferEngine[StagedInitInfo, StagedUpdateInfo]):
    """Weights from a local file. An error leaves the model unusable: the caller takes the worker out of service."""

    init_info_cls = StagedInitInfo
    update_info_cls = StagedUpdateInfo

    def init_transfer_engine(self, init_info: StagedInitInfo) -> None:
        """No peers, no rendezvous."""

    def start_weight_update(self) -> None:
        """Put every layer back to checkpoint format."""
        self._expected = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As the base class, which would synchronise an accelerator that a CPU has not."""
        self.receive_weights(self.parse_update_info(update_info))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: StagedUpdateInfo) -> None:
        """Load all tensors of the file; one the model needs and does not get is an error, not a stale layer."""
        with safe_open(update_info.path, framework="pt", device="cpu") as file:
            loaded = self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
        missing = self._expected - set(loaded)
        if missing:
            raise ValueError(f"{len(missing)} parameters are not in the staged file, {min(missing)} among them")

    def finish_weight_update(self) -> None:
        """Pack every layer again. A tied output head is packed from the embedding's weight only after that."""
        finalize_layerwise_reload(self.model, self.model_config)
        for layer in _sharing_a_weight(self.model):
            layer.quant_method.process_weights_after_loading(layer)

    def shutdown(self) -> None:
        """Nothing is held between updates."""


def _sharing_a_weight(model: torch.nn.Module) -> list[Any]:
    """Embedding-like layers (the output head is one) whose weight belongs to another such layer too.

    On the CPU the head computes with a packed copy, made when the head's own weight is loaded. With tied embeddings the
    checkpoint holds no such weight, and vLLM's reload leaves the old copy in place without an error.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, VocabParallelEmbedding)]
    owners: dict[int, list[Any]] = {}
    for layer in layers:
        owners.setdefault(layer.weight.data_ptr(), []).append(layer)
    return [layer for group in owners.values() if len(group) > 1 for layer in group]
