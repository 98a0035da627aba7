"""Rankings of the SFT model's own responses by simulated labelers."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import PreTrainedModel

from onlinerlhf.learner.sampling import Sampling, sample_responses
from onlinerlhf.learner.training.data import Ranking
from onlinerlhf.learner.training.progress import Progress
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.labeler import MAX_RESPONSES, MIN_RESPONSES, Labeler, gold_agreement, rank
from onlinerlhf.world.tasks import Task

_TASKS_DRAWN_TOGETHER = 480
_SPARE_TASKS = 8
_SAMPLED_TOGETHER = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedTask:
    """A ranking, and the task it is about."""

    task: Task
    ranking: Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """Has a model answer tasks and labelers rank the answers."""

    policy: PreTrainedModel
    tokenizer: PromptTokenizer
    max_response_tokens: int
    seed: int

    def collect(
        self, tasks: Iterator[Task], labelers: Sequence[Labeler], count: int, *, progress: Progress
    ) -> list[RankedTask]:
        """Rankings of 4 to 9 responses to each task.

        Tasks whose responses are all the same text teach nothing and are passed over.
        """
        rng = random.Random(f"rankings/{self.seed}/{labelers[0].name}")
        generator = torch.Generator().manual_seed(self.seed)
        found: list[RankedTask] = []
        while len(found) < count:
            wanted = min(_TASKS_DRAWN_TOGETHER, count - len(found) + _SPARE_TASKS)
            drawn = [(task, rng.randint(MIN_RESPONSES, MAX_RESPONSES)) for task in islice(tasks, wanted)]
            if not drawn:
                raise ValueError(f"the tasks ended after {len(found)} rankings, {count} were wanted")
            answered = self._answers(drawn, generator)
            ranked = [self._ranked(task, responses, rng.choice(labelers), rng) for task, responses in answered]
            kept = [each for each in ranked if each.ranking.has_pairs][: count - len(found)]
            found += kept
            progress.advance(steps=len(kept))
        return found

    def _answers(
        self, drawn: Sequence[tuple[Task, int]], generator: torch.Generator
    ) -> list[tuple[Task, list[list[int]]]]:
        """Tasks that get equally many responses are answered together: each prompt is then read once."""
        answers: list[tuple[Task, list[list[int]]]] = []
        for num_responses in range(MIN_RESPONSES, MAX_RESPONSES + 1):
            tasks = [task for task, number in drawn if number == num_responses]
            how = Sampling(
                max_tokens=self.max_response_tokens,
                eos_token_id=self.tokenizer.eos_token_id,
                num_responses=num_responses,
                batch_size=_SAMPLED_TOGETHER,
            )
            prompts = [self.tokenizer.encode_prompt(task.prompt) for task in tasks]
            sampled = sample_responses(self.policy, prompts, how, generator=generator)
            responses = ([each.token_ids for each in one] for one in sampled)
            answers += zip(tasks, responses, strict=True)
        return answers

    def _ranked(self, task: Task, responses: list[list[int]], labeler: Labeler, rng: random.Random) -> RankedTask:
        texts = [self.tokenizer.decode(response) for response in responses]
        order = rank(task, texts, labeler, rng)
        ranks = [0] * len(texts)
        for place, (before, index) in enumerate(zip((None, *order[:-1]), order, strict=True)):
            ranks[index] = ranks[before] if before is not None and texts[before] == texts[index] else place
        prompt = self.tokenizer.encode_prompt(task.prompt)
        return RankedTask(
            task=task, ranking=Ranking(prompt=prompt, responses=responses, ranks=ranks, labeler=labeler.name)
        )


def ceiling(tokenizer: PromptTokenizer, ranked: Sequence[RankedTask]) -> float:
    """Pair accuracy that the gold judge itself would get on these noisy rankings, averaged over prompts."""
    agreements = [
        gold_agreement(
            each.task, [tokenizer.decode(response) for response in each.ranking.responses], each.ranking.ranks
        )
        for each in ranked
    ]
    return sum(agreements) / len(agreements)
