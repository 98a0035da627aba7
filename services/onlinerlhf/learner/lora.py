"""Low-rank adapters of the policy: only they are trained, and they are merged into what leaves the learner.

Hu et al. 2021 (arXiv:2106.09685): W' = W + (alpha / rank) B A, with A random and B zero at the start, so that training
starts from W itself.
"""

from collections.abc import Mapping, Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.tensors import unique_tensors

_BASE, _A, _B = "base_layer.", "lora_A.default.weight", "lora_B.default.weight"


def add_adapters(model: PreTrainedModel, config: RecipeConfig) -> None:
    """Put adapters beside the target layers and freeze all else. ConfigError: there are no such layers."""
    _check_targets(model, config.lora_targets)
    # The same on every rank, and again at every start.
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        inject_adapter_in_model(
            LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(config.lora_targets)),
            model,
        )


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    names = unique_tensors(model)
    found: set[str] = set()
    for name, layer in model.named_modules():
        target = name.rpartition(".")[2]
        if target in targets:
            found.add(target)
            if not isinstance(layer, torch.nn.Linear):
                raise ConfigError(f"lora_targets: {name} is no linear layer")
            if f"{name}.weight" not in names:
                raise ConfigError(f"lora_targets: the weights of {name} are another layer's too, so none can be merged")
    unknown = [target for target in targets if target not in found]
    if unknown or not targets:
        modules = model.named_modules()
        linear = {name.rpartition(".")[2] for name, layer in modules if isinstance(layer, torch.nn.Linear)}
        raise ConfigError(
            f"lora_targets: {type(model).__name__} has no layer {', '.join(unknown) or 'without a name'}; "
            f"its linear layers are {', '.join(sorted(linear))}"
        )


def adapter_scales(model: PreTrainedModel) -> dict[str, float]:
    """alpha / rank of each layer that has an adapter, by the layer's name. Empty: there are none."""
    return {name: float(layer.scaling["default"]) for name, layer in model.named_modules() if isinstance(layer, Linear)}


def merged(tensors: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """A model's tensors under the names they have without adapters; these are added to what they sit on."""
    plain = {}
    for name, tensor in tensors.items():
        if name.endswith((_A, _B)):
            continue
        layer, _, last = name.rpartition(_BASE)
        layer = layer.removesuffix(".")
        if layer in scales and last == "weight":
            delta = tensors[f"{layer}.{_B}"].float() @ tensors[f"{layer}.{_A}"].float()
            plain[f"{layer}.weight"] = (tensor.float() + scales[layer] * delta).to(tensor.dtype)
        else:
            plain[name.replace(_BASE, "") if layer in scales else name] = tensor
    return plain
