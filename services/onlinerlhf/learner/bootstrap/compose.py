"""Runs the stages in order. A stage whose directory is there is complete and is not repeated."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.bootstrap import pretrain, sft
from onlinerlhf.learner.bootstrap import reward_model as rm
from onlinerlhf.learner.bootstrap.sizes import SIZES, Size
from onlinerlhf.learner.bootstrap.tokenizer_training import train_tokenizer
from onlinerlhf.learner.training.progress import Reporter, Silence
from onlinerlhf.learner.training.reward_model import centre, reward_model_from
from onlinerlhf.models.policy import load_policy, save_model
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.demonstrations import demonstrations
from onlinerlhf.world.text import documents

STAGES = ("tokenizer", "base", "sft", "reward")
REPORT = "bootstrap.json"
# A second thread makes a stage a third faster; models this small gain nothing from a third.
_NUM_THREADS = 2


def bootstrap(
    out_dir: Path,
    *,
    seed: int = 0,
    scale: str = "demo",
    progress: Reporter | None = None,
    num_threads: int = _NUM_THREADS,
) -> None:
    """Makes `out_dir/{tokenizer,base,sft,reward}` and `out_dir/bootstrap.json`."""
    if scale not in SIZES:
        raise ConfigError(f"scale is {scale!r}, expected one of {', '.join(SIZES)}")
    work = _Work(out=out_dir, seed=seed, scale=scale, size=SIZES[scale], reporter=progress or Silence())
    work.begin()
    with _threads(num_threads):
        _run(work)


def _run(work: "_Work") -> None:
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "tokenizer": work.tokenizer,
        "base": work.base,
        "sft": work.sft,
        "reward": work.reward,
    }
    for name in STAGES:
        if not (work.out / name).is_dir():
            began = time.monotonic()
            work.record(name, {**stages[name](), "seconds": round(time.monotonic() - began, 1)})


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    out: Path
    seed: int
    scale: str
    size: Size
    reporter: Reporter

    def begin(self) -> None:
        """Starts a report, or goes on with one of the same seed and scale."""
        self.out.mkdir(parents=True, exist_ok=True)
        report = self._report()
        wanted = {"seed": self.seed, "scale": self.scale}
        found = {key: report.get(key, value) for key, value in wanted.items()}
        if found != wanted:
            raise ConfigError(f"{self.out} was made with {found}, not {wanted}; choose another directory")
        self._write({**report, **wanted})

    def record(self, stage: str, facts: dict[str, Any]) -> None:
        """Adds what one stage measured to the report."""
        self._write({**self._report(), stage: facts})
        self.reporter.say(f"{stage}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))

    def tokenizer(self) -> dict[str, Any]:
        texts = [
            document.text for document in itertools.islice(documents(seed=self.seed), self.size.tokenizer_documents)
        ]
        texts += [demonstration.answer for demonstration in
                  itertools.islice(demonstrations(seed=self.seed), self.size.tokenizer_documents)]  # fmt: skip
        train_tokenizer(texts, self.out / "tokenizer", vocab_size=self.size.vocab_size)
        return {"vocab_size": self._tokenizer().vocab_size}

    def base(self) -> dict[str, Any]:
        tokenizer = self._tokenizer()
        model = pretrain.new_model(tokenizer, self.size, tie_word_embeddings=False, seed=self.seed)
        loss = pretrain.pretrain(model, tokenizer, self.size, seed=self.seed, progress=self.reporter)
        save_model(model, self.out / "tokenizer", self.out / "base")
        return {"parameters": model.num_parameters(), "loss": round(loss, 4)}

    def sft(self) -> dict[str, Any]:
        tokenizer, model = self._tokenizer(), load_policy(self.out / "base")
        loss = sft.finetune(model, tokenizer, self.size, seed=self.seed, progress=self.reporter)
        save_model(model, self.out / "tokenizer", self.out / "sft")
        return {"demonstrations": self.size.num_demonstrations, "loss": round(loss, 4)}

    def reward(self) -> dict[str, Any]:
        tokenizer, policy = self._tokenizer(), load_policy(self.out / "sft")
        rankings = rm.collect_rankings(policy, tokenizer, self.size, seed=self.seed, progress=self.reporter)
        model = reward_model_from(self.out / "sft", seed=self.seed)
        loss = rm.train_reward_model(model, rankings.train, self.size, seed=self.seed, progress=self.reporter)
        shown = sft.examples(tokenizer, min(1_000, self.size.num_demonstrations), seed=self.seed)
        centre(model, shown, micro_batch_tokens=rm.MICRO_BATCH_TOKENS)
        save_model(model, self.out / "tokenizer", self.out / "reward")
        return {
            "rankings": len(rankings.train),
            "loss": round(loss, 4),
            **rm.measurements(model, tokenizer, rankings),
            "score_offset": round(model.config.score_offset, 4),
        }

    def _tokenizer(self) -> PromptTokenizer:
        return PromptTokenizer.load(self.out / "tokenizer")

    def _report(self) -> dict[str, Any]:
        path = self.out / REPORT
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _write(self, report: dict[str, Any]) -> None:
        temporary = self.out / f".{REPORT}"
        temporary.write_text(json.dumps(report, indent=2) + "\n")
        temporary.replace(self.out / REPORT)
