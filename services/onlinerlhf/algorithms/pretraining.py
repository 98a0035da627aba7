"""The pretraining mix of PPO-ptx, which holds on to what the policy could do before.

Source: Ouyang et al. 2022 (arXiv:2203.02155), equation 2 and appendix C.4.
"""

from torch import Tensor


def pretraining_loss(logprobs: Tensor, *, coef: float, num_tokens: int) -> Tensor:
    """-coef sum(log pi(x_t|.)) / num_tokens: `coef` (gamma, 27.8) times the mean over the mix's predicted tokens, nats.

    logprobs: [M], of one micro-batch. num_tokens: predicted tokens of the whole share of the mix that goes with a
    minibatch, so that the losses of its micro-batches add up to the same number however it is split. The gradient is
    *added* to PPO's before the same optimizer step (and before clipping); the two are not averaged. -> [].
    """
    return -coef * logprobs.sum() / num_tokens
