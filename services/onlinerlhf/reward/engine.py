"""The reward model: token ids in, one score a sequence out. The only file of this room that loads torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from onlinerlhf.core.errors import InvalidInput, OnlineRLHFError, StartupError
from onlinerlhf.models.scalar import load_reward_model, reward_scores
from onlinerlhf.models.version import model_version


class ScoringFailed(OnlineRLHFError):
    """The model gave no finite score; never turned into a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreItem:
    """One response in its context."""

    prompt_token_ids: tuple[int, ...]
    response_token_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Length of the sequence that is scored."""
        return len(self.prompt_token_ids) + len(self.response_token_ids)


class RewardEngine:
    """A loaded reward model. Not thread-safe: one caller at a time."""

    def __init__(self, model_dir: Path, *, batch_tokens: int, num_threads: int) -> None:
        """Load the model; StartupError says what is wrong with the directory."""
        torch.set_num_threads(num_threads)
        try:
            self._model = load_reward_model(model_dir)
            self.version = model_version(model_dir)
        except (OSError, ValueError) as error:
            raise StartupError(f"cannot load the reward model from {model_dir}: {error}") from error
        self._batch_tokens = batch_tokens
        self._vocab_size = int(self._model.config.vocab_size)
        self._max_tokens = int(self._model.config.max_position_embeddings)

    def check(self, item: ScoreItem) -> None:
        """InvalidInput where the model cannot read the item, whoever tries it again."""
        if not item.prompt_token_ids or not item.response_token_ids:
            raise InvalidInput("a prompt and a response of at least one token each are needed", reason="empty")
        if item.num_tokens > self._max_tokens:
            message = f"{item.num_tokens} tokens exceed the reward model's {self._max_tokens}"
            raise InvalidInput(message, reason="too_many_tokens")
        largest = max(max(item.prompt_token_ids), max(item.response_token_ids))
        if largest >= self._vocab_size:
            message = f"token id {largest} is outside the reward model's vocabulary of {self._vocab_size}"
            raise InvalidInput(message, reason="unknown_token")

    def score(self, items: Sequence[ScoreItem]) -> list[float]:
        """One score an item, in order.

        Raises InvalidInput for an item the model cannot read and ScoringFailed for a score that is not finite.
        """
        for item in items:
            self.check(item)
        scores: dict[int, float] = {}
        for batch in length_batches([item.num_tokens for item in items], batch_tokens=self._batch_tokens):
            scores.update(zip(batch, self._forward([items[i] for i in batch]), strict=True))
        return [scores[index] for index in range(len(items))]

    def _forward(self, items: Sequence[ScoreItem]) -> list[float]:
        longest = max(item.num_tokens for item in items)
        input_ids = torch.zeros(len(items), longest, dtype=torch.long)  # [B, T], right-padded
        attention_mask = torch.zeros(len(items), longest, dtype=torch.long)  # [B, T]
        for row, item in enumerate(items):
            input_ids[row, : item.num_tokens] = torch.tensor(item.prompt_token_ids + item.response_token_ids)
            attention_mask[row, : item.num_tokens] = 1
        try:
            with torch.inference_mode():
                scores = reward_scores(self._model, input_ids, attention_mask).float()  # [B]
        except RuntimeError as error:  # out of memory, a bad kernel: this batch failed, the service did not
            raise ScoringFailed(f"the forward pass of {len(items)} x {longest} tokens failed") from error
        if not bool(torch.isfinite(scores).all()):
            raise ScoringFailed("the reward model gave a score that is not finite")
        return [float(score) for score in scores]


def length_batches(lengths: Sequence[int], *, batch_tokens: int) -> Iterator[list[int]]:
    """Indices grouped so that sequences of like length share a pass of at most `batch_tokens` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[index] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
