"""`onlinerlhf train …`: the recipe's stages, each on its own, from files to a model directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def training_options(command: F) -> F:
    """What every stage takes."""
    for option in (
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated."),
        click.option("--config", type=_FILE, help="TOML with settings; --set goes over it."),
        click.option(
            "--out",
            required=True,
            type=click.Path(file_okay=False, path_type=Path),
            help="Where to: a model directory with a report. A training that stopped there goes on.",
        ),
        click.option(
            "--data", required=True, multiple=True, type=_FILE, help="JSON Lines or Parquet; may be repeated."
        ),
        click.option("--model", required=True, type=_DIRECTORY, help="The model directory to start from."),
    ):
        command = option(command)
    return command


@click.group()
def train() -> None:
    """Train models offline: supervised fine-tuning and the stages after it.

    \b
      onlinerlhf train sft --model base --data demonstrations.jsonl --out sft
      onlinerlhf train reward --model sft --data rankings.jsonl --demonstrations demonstrations.jsonl --out reward
      onlinerlhf train ppo --policy sft --reward reward --prompts prompts.jsonl --out ppo
    """


@train.command()
@training_options
@click.option("--validation", type=_FILE, help="Demonstrations to validate on.  [default: a share of --data]")
@click.option("--reward", type=_DIRECTORY, help="Reward model that chooses the epoch.  [default: validation loss does]")
def sft(**options: Any) -> None:
    """Fine-tune a model on demonstrations: rows of prompt and completion, texts or lists of messages.

    Trains for 16 epochs with residual dropout 0.2 and the learning rate falling along a cosine to a tenth, and keeps
    the epoch whose answers to validation prompts the reward model scores best. Rows that name a user are split by
    user. An interrupted training goes on when the same command is given again, and ends with the same weights.

    \b
      onlinerlhf train sft --model base --data demonstrations.jsonl --reward reward --out sft
      onlinerlhf train sft --model base --data a.parquet --data b.jsonl --validation held-out.jsonl --out sft
      onlinerlhf train sft --model base --data demonstrations.jsonl --out sft --set epochs=3 --set learning_rate=2e-5
    """
    from onlinerlhf.learner.training.sft import sft_command

    sft_command(**options)


@train.command()
@training_options
@click.option(
    "--demonstrations", type=_FILE, help="Scores are shifted so that these average 0.  [default: scores not centred]"
)
@click.option(
    "--held-out-labelers", metavar="NAME,...", help="Never trained on; how far the model agrees with them is measured."
)
def reward(**options: Any) -> None:
    """Train a reward model on rankings: rows of prompt, responses and ranks, or of prompt, chosen and rejected.

    A rank is 0 for the best response, equal for ties, -1 for a response that was not ranked; labeler names who ranked.
    All pairs of a ranking are one batch element. Trains for one epoch, the learning rate falling along a cosine to a
    tenth. A share of the prompts is held out: report.json has the accuracy by labeler, calibration.png shows whether a
    pair that the model is 80% sure of is right in 80%. An interrupted training goes on when the same command is given
    again.

    \b
      onlinerlhf train reward --model sft --data rankings.jsonl --demonstrations demonstrations.jsonl --out reward
      onlinerlhf train reward --model sft --data rankings.jsonl --held-out-labelers ada,grace --out reward
      onlinerlhf train reward --model sft --data preferences.parquet --out reward --set batch_size=32
    """
    from onlinerlhf.learner.training.reward import reward_command

    reward_command(**options)


@train.command()
@click.option("--policy", required=True, type=_DIRECTORY, help="Where the policy starts; also what KL is measured to.")
@click.option("--reward", required=True, type=_DIRECTORY, help="Reward model; the value network starts from it, too.")
@click.option(
    "--prompts", required=True, multiple=True, type=_FILE, help="JSON Lines or Parquet with prompt; may be repeated."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to: the policy as a model directory, its average's in ema/, a report. What stopped there goes on.",
)
@click.option("--ptx-data", type=_FILE, help="Pretraining texts to mix in (PPO-ptx): rows of text.")
@click.option("--config", type=_FILE, help="TOML with settings; --set goes over it.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
def ppo(**options: Any) -> None:
    """Learn from a reward model by PPO, PPO-ptx, RLOO or GRPO, without a platform.

    Each step samples responses to the next prompts from the policy as it is, scores them, and learns from them as the
    online learner does. An interrupted training goes on from its last checkpoint when the same command is given again,
    and ends with the same weights. Ctrl-C saves after the step at hand.

    \b
      onlinerlhf train ppo --policy sft --reward reward --prompts prompts.jsonl --out ppo
      onlinerlhf train ppo --policy sft --reward reward --prompts prompts.jsonl --ptx-data texts.jsonl --out ppo-ptx
      onlinerlhf train ppo --policy sft --reward reward --prompts prompts.jsonl --out rloo \\
        --set advantage_estimator=rloo --set num_responses=4
    With the models of `onlinerlhf bootstrap`, in minutes:
      onlinerlhf train ppo --policy .onlinerlhf/models/sft --reward .onlinerlhf/models/reward \\
        --prompts prompts.jsonl --out ppo --set max_response_tokens=40 --set batch_size=128 \\
        --set num_responses=2 --set num_minibatches=4 --set learning_rate=1.5e-4 --set value_learning_rate=1e-3
    """
    from onlinerlhf.learner.training.ppo import ppo_command

    ppo_command(**options)
