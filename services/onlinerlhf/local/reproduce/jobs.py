"""What is to be done for one seed, each in a process of its own: the models and what they do, PPO, PPO-ptx.

A job leaves its numbers in a file when it is done, and is not repeated then; broken off, it goes on where it was.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from onlinerlhf.learner import ppo as learning
from onlinerlhf.learner.bootstrap import bootstrap, tiny_models
from onlinerlhf.learner.training.ppo import OnStep, train_ppo
from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.local.reproduce.layout import BASE, MODELS, PPO, PROMPTED, PTX, SFT, SeedDirectory
from onlinerlhf.local.reproduce.measure import Examiner, Measured
from onlinerlhf.local.reproduce.people import People
from onlinerlhf.local.reproduce.prompting import ask, choose, wordings
from onlinerlhf.models.policy import load_policy
from onlinerlhf.models.scalar import load_reward_model
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.users import UserPrompt, prompts, users

NUM_THREADS = 1
"""Of one job: two jobs side by side do more than one job with two threads."""
_TUNING_SEED = 2_000_000


def run_job(directory: SeedDirectory, job: str, *, progress: Reporter) -> None:
    """Do it unless it is done."""
    if directory.result(job) is not None:
        return
    logging.disable_progress_bar()
    torch.set_num_threads(NUM_THREADS)
    directory.claim()
    began = time.monotonic()
    jobs: Mapping[str, Callable[[SeedDirectory, Reporter], dict[str, Any]]] = {
        MODELS: _models,
        PPO: lambda directory, progress: _train(directory, PPO, {}, progress),
        PTX: _train_with_mix,
    }
    found = jobs[job](directory, progress)
    directory.finish(job, {**found, "seconds": time.monotonic() - began})


def _models(directory: SeedDirectory, progress: Reporter) -> dict[str, Any]:
    """Base, SFT and reward model, and what the first two do."""
    settings, people = directory.settings, people_of(directory)
    if settings.scale == "tiny":
        tiny_models(directory.models, tie_word_embeddings=False, seed=directory.seed)
    else:
        bootstrap(
            directory.models, seed=directory.seed, scale=settings.scale, progress=progress, num_threads=NUM_THREADS
        )
    _write_rows(directory.data("prompts"), ({"prompt": prompt.text} for prompt in people.train))
    _write_rows(directory.data("pretraining"), ({"text": text} for text in people.pretraining_texts()))
    examiner, held_out = examiner_of(directory), people.held_out
    stage = progress.start("base and SFT answers", 3)
    base, sft = load_policy(directory.models / "base"), load_policy(directory.models / "sft")
    found = {BASE: examiner.measure(base, held_out), SFT: examiner.measure(sft, held_out)}
    stage.advance(steps=2)
    candidates = wordings(seed=directory.seed)
    prompted = choose(examiner, base, _tuning_prompts(directory), candidates)
    answers = ask(examiner, base, held_out, candidates[prompted.wording])
    found[PROMPTED] = Measured(answers=answers, lm_loss=found[BASE].lm_loss)
    stage.advance(detail=prompted.wording)
    return {
        "measured": {name: each.as_json() for name, each in found.items()},
        "prompted": asdict(prompted),
        "bootstrap": json.loads((directory.models / "bootstrap.json").read_text(encoding="utf-8"))
        if settings.scale != "tiny"
        else {},
    }


def _train_with_mix(directory: SeedDirectory, progress: Reporter) -> dict[str, Any]:
    extra = {**directory.settings.ptx, "ptx_data": directory.data("pretraining")}
    return _train(directory, PTX, extra, progress)


def _train(directory: SeedDirectory, job: str, extra: Mapping[str, object], progress: Reporter) -> dict[str, Any]:
    """A training by `onlinerlhf train ppo`, watched, and what the policy it made does."""
    config = PPOTrainConfig.model_validate(
        {
            "policy_dir": directory.models / "sft",
            "reward_dir": directory.models / "reward",
            "prompts": (directory.data("prompts"),),
            "output_dir": directory.run(job),
            "max_response_tokens": directory.settings.max_tokens,
            "num_threads": NUM_THREADS,
            "seed": directory.seed,
            **directory.settings.ppo,
            **extra,
        }
    )
    examiner, held_out = examiner_of(directory), people_of(directory).held_out
    trained = train_ppo(config, progress=progress, on_step=_watch(directory, examiner, held_out))
    policies = {"final": trained.out, "ema": trained.out / "ema"}
    measured = {name: examiner.measure(load_policy(path), held_out).as_json() for name, path in policies.items()}
    return {"measured": measured, "num_steps": trained.num_steps, "history": trained.history}


def _watch(directory: SeedDirectory, examiner: Examiner, held_out: tuple[UserPrompt, ...]) -> OnStep:
    """Every few steps: reward-model score against gold score, KL, and the language-model loss."""
    some, every = held_out[: directory.settings.num_watched], directory.settings.watch_every

    def on_step(learner: learning.PPO, numbers: Mapping[str, float]) -> Mapping[str, float] | None:
        if numbers["step"] % every:
            return None
        found = examiner.measure(learner.policy, some)
        return watched(found)

    return on_step


def watched(found: Measured) -> dict[str, float]:
    """The numbers of one point of a curve."""
    answers = found.answers
    count = len(answers.gold_scores)
    return {
        "watched_gold": sum(answers.gold_scores) / count,
        "watched_reward": sum(answers.reward_scores) / count,
        "watched_kl_nats": answers.kl_nats or 0.0,
        "watched_lm_loss": found.lm_loss,
    }


def people_of(directory: SeedDirectory) -> People:
    """This seed's."""
    return People(seed=directory.seed, settings=directory.settings)


def examiner_of(directory: SeedDirectory) -> Examiner:
    """With this seed's models."""
    tokenizer = PromptTokenizer.load(directory.models / "sft")
    return Examiner(
        tokenizer=tokenizer,
        reward_model=load_reward_model(directory.models / "reward"),
        reference=load_policy(directory.models / "sft"),
        texts=[[*tokenizer.encode_text(text), tokenizer.eos_token_id] for text in people_of(directory).unseen_texts()],
        max_tokens=directory.settings.max_tokens,
    )


def _tuning_prompts(directory: SeedDirectory) -> tuple[UserPrompt, ...]:
    """Train users' prompts, other ones than PPO's."""
    people = users(directory.seed, count=directory.settings.num_users).train
    return prompts(people, directory.settings.num_tuning_prompts, seed=_TUNING_SEED + directory.seed)


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
