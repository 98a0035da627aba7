"""The exponential moving average of the policy's weights, which InstructGPT evaluates and ships.

Source: Ouyang et al. 2022 (arXiv:2203.02155), appendix C.4: decay 0.992.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class EMA:
    """shadow = decay * shadow + (1 - decay) * weight, after each optimizer step; sharded as the weights are."""

    def __init__(self, parameters: Sequence[Tensor], *, decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.shadow = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        torch._foreach_lerp_(self.shadow, [parameter.detach() for parameter in self.parameters], 1 - self.decay)

    @torch.no_grad()
    def copy_from(self, tensors: Sequence[Tensor]) -> None:
        """Go on from another average, in place."""
        for mine, theirs in zip(self.shadow, tensors, strict=True):
            mine.copy_(theirs)
