"""Stage 2: supervised fine-tuning on demonstrations."""

import itertools

from transformers import PreTrainedModel

from onlinerlhf.learner.bootstrap.muon import muon_and_adamw
from onlinerlhf.learner.bootstrap.sizes import Size
from onlinerlhf.learner.training.config import TrainingConfig
from onlinerlhf.learner.training.data import Example
from onlinerlhf.learner.training.loop import fit
from onlinerlhf.learner.training.objective import shuffled
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.learner.training.responses import response_objective
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.demonstrations import demonstrations


def examples(tokenizer: PromptTokenizer, count: int, *, seed: int) -> list[Example]:
    """Demonstrations as tokens."""
    return [
        Example(
            prompt=tokenizer.encode_prompt(demonstration.task.prompt),
            response=[*tokenizer.encode_text(demonstration.answer), tokenizer.eos_token_id],
        )
        for demonstration in itertools.islice(demonstrations(seed=seed), count)
    ]


def finetune(model: PreTrainedModel, tokenizer: PromptTokenizer, size: Size, *, seed: int, progress: Reporter) -> float:
    """Trains on the responses only, without dropout: few epochs. Returns the final loss in nats a response token."""
    outcome = fit(
        model,
        shuffled(examples(tokenizer, size.num_demonstrations, seed=seed), batch_size=size.sft_batch, seed=seed),
        response_objective(model),
        TrainingConfig(epochs=size.sft_epochs, batch_size=size.sft_batch, seed=seed, device="cpu"),
        optimizers=muon_and_adamw(size.sft_rates),
        progress=progress,
        name="fine-tuning",
    )
    return outcome.final_loss
