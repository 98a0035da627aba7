"""The command line's way in."""

from pathlib import Path

from transformers.utils import logging

from onlinerlhf.learner.bootstrap.compose import bootstrap
from onlinerlhf.learner.training.progress import reporter


def bootstrap_command(out: Path, seed: int, scale: str) -> None:
    """Bootstraps with progress on standard error."""
    logging.disable_progress_bar()  # a bar for each of our small files would drown the stages' own
    with reporter() as progress:
        bootstrap(out, seed=seed, scale=scale, progress=progress)
        progress.say(f"models are in {out}")
