"""RewardService: decode, score, encode."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.reward.engine import ScoreItem
from onlinerlhf.v1 import reward_pb2, reward_pb2_grpc


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """Scores on request, with the same engine as the worker."""

    def __init__(
        self, score: Callable[[Sequence[ScoreItem]], Awaitable[list[float]]], *, version: str, max_items: int
    ) -> None:
        self._score = score
        self._version = version
        self._max_items = max_items

    async def Score(
        self, request: reward_pb2.ScoreRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> reward_pb2.ScoreResponse:
        """Score all items or none."""
        if not 1 <= len(request.items) <= self._max_items:
            raise InvalidInput(f"{len(request.items)} items; between 1 and {self._max_items} can be scored at once")
        items = [
            ScoreItem(prompt_token_ids=tuple(item.prompt_token_ids), response_token_ids=tuple(item.response_token_ids))
            for item in request.items
        ]
        return reward_pb2.ScoreResponse(scores=await self._score(items), reward_model_version=self._version)
