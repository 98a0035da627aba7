"""The strongest way found to ask the base model, which follows no instructions by itself.

Candidates are all that its pretraining text suggests: the bare chat layout, a question as books and letters print it,
the same with its source named, and each with worked examples before it. The judge picks the best on prompts of train
users.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from transformers import PreTrainedModel

from onlinerlhf.core.samples import UseCase
from onlinerlhf.local.reproduce.measure import Answers, Examiner
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.draw import training_tasks
from onlinerlhf.world.tasks import Task
from onlinerlhf.world.text import SOURCES
from onlinerlhf.world.users import UserPrompt

Wording = Callable[[PromptTokenizer, str], list[int]]
NEXT_QUESTION = re.compile(r"\n(?:[^\n]*: )?question:")
"""Where an answer ends that goes on with another question, its source named or not."""
_NUM_EXAMPLES = (1, 3)
_NO_SOURCE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """A base model with the prompt that suits it best."""

    wording: str
    """The winner's name."""
    scores: Mapping[str, float]
    """Mean gold score of every candidate on the tuning prompts."""


def wordings(*, seed: int) -> dict[str, Wording]:
    """All candidates by name."""
    examples = list(islice(worked_examples(seed=seed), max(_NUM_EXAMPLES)))
    found: dict[str, Wording] = {"chat": lambda tokenizer, text: tokenizer.encode_prompt(text)}
    for source in (_NO_SOURCE, *SOURCES):
        for count in (0, *_NUM_EXAMPLES):
            name = f"{source or 'question'}{f', {count} worked examples' if count else ''}"
            found[name] = _printed(source, examples[:count])
    return found


def worked_examples(*, seed: int) -> Iterator[Task]:
    """Tasks of the training side with perfect answers, of one use case after another."""
    rng = random.Random(f"worked examples/{seed}")
    seen: set[UseCase] = set()
    for task in training_tasks(rng):
        if task.use_case not in seen:
            seen.add(task.use_case)
            yield task


def choose(
    examiner: Examiner, base: PreTrainedModel, prompts: Sequence[UserPrompt], candidates: Mapping[str, Wording]
) -> Prompted:
    """Tries every candidate."""
    scores = {}
    for name, wording in candidates.items():
        found = ask(examiner, base, prompts, wording).gold_scores
        scores[name] = sum(found) / len(found)
    return Prompted(wording=max(scores, key=scores.__getitem__), scores=scores)


def ask(examiner: Examiner, base: PreTrainedModel, prompts: Sequence[UserPrompt], wording: Wording) -> Answers:
    """The base model's answers when it is asked so."""
    encoded = [wording(examiner.tokenizer, prompt.text) for prompt in prompts]
    return examiner.ask_encoded(base, prompts, encoded, stop=NEXT_QUESTION)


def _printed(source: str, examples: Sequence[Task]) -> Wording:
    head = f"{source}: " if source else ""
    before = "".join(f"{head}question: {task.prompt}\nanswer: {task.good}\n" for task in examples)

    def encode(tokenizer: PromptTokenizer, text: str) -> list[int]:
        return tokenizer.encode_text(f"{before}{head}question: {text}\nanswer:")

    return encode
