"""Answers of two policy versions to the same held-out prompts, and who wins by the gold judge."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.world.judge import WinRate, compare, judge, win_rate
from onlinerlhf.world.users import UserPrompt
from onlinerlhf_client import AsyncClient

CONCURRENT_ANSWERS = 16
"""Below what a rollout worker takes at once in the user lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswer:
    """One answer, the newest policy version behind it, and the gold judge's score in [0, 1]."""

    prompt: UserPrompt
    text: str
    version: int
    gold_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """PPO against SFT on the same prompts, in the same order."""

    sft: tuple[JudgedAnswer, ...]
    ppo: tuple[JudgedAnswer, ...]

    def __post_init__(self) -> None:
        if [each.prompt for each in self.sft] != [each.prompt for each in self.ppo]:
            raise ValueError("the two sides answered different prompts")

    @property
    def win_rate(self) -> WinRate:
        """Of PPO over SFT, ties half."""
        pairs = zip(self.ppo, self.sft, strict=True)
        return win_rate([compare(ppo.prompt.task, ppo.text, sft.text) for ppo, sft in pairs])

    @property
    def sft_gold(self) -> float:
        """Mean gold score of the SFT policy."""
        return mean(each.gold_score for each in self.sft)

    @property
    def ppo_gold(self) -> float:
        """Mean gold score of the PPO policy."""
        return mean(each.gold_score for each in self.ppo)

    @property
    def ppo_versions(self) -> tuple[int, int]:
        """Oldest and newest version that answered for PPO."""
        versions = [each.version for each in self.ppo]
        return min(versions), max(versions)


async def answer_all(
    target: str, api_key: str, prompts: Sequence[UserPrompt], *, max_tokens: int, on_answer: Callable[[], None]
) -> tuple[JudgedAnswer, ...]:
    """Each prompt answered once at temperature 1 and never offered for training."""
    turns = asyncio.Semaphore(CONCURRENT_ANSWERS)

    async def one(client: AsyncClient, prompt: UserPrompt) -> JudgedAnswer:
        async with turns:
            answer = await client.answer(
                prompt.text, user_id=prompt.user_id, max_tokens=max_tokens, temperature=1.0, consent=None
            )
        on_answer()
        return JudgedAnswer(
            prompt=prompt,
            text=answer.text,
            version=answer.policy_version,
            gold_score=judge(prompt.task, answer.text).score,
        )

    async with AsyncClient(target, api_key=api_key) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(client, prompt), name="answer") for prompt in prompts]
    return tuple(task.result() for task in tasks)


def require_version(answers: Sequence[JudgedAnswer], version: int) -> None:
    """The comparison is void when something else than `version` answered for the SFT policy."""
    others = {answer.version for answer in answers} - {version}
    if others:
        raise OnlineRLHFError(f"version {version} was to answer, but {sorted(others)} did")
