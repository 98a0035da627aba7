"""Judgements of answers: `client.feedback`. Stored for the reward model; only of answers that this key received."""

from collections.abc import Awaitable, Callable, Sequence

from onlinerlhf.v1 import gateway_pb2
from onlinerlhf_client.codec import text_to_bytes
from onlinerlhf_client.types import FeedbackReceipt, new_idempotency_key

Request = gateway_pb2.SubmitFeedbackRequest


class Feedback:
    """Each method tries again until `timeout`, always with the same idempotency key."""

    def __init__(self, send: Callable[[Request, float | None], FeedbackReceipt]) -> None:
        self._send = send

    def thumb(
        self, sample_id: str, *, up: bool, idempotency_key: str | None = None, timeout: float | None = None
    ) -> FeedbackReceipt:
        """A thumb up or down."""
        return self._send(thumb(sample_id, up, idempotency_key), timeout)

    def score(
        self, sample_id: str, value: float, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> FeedbackReceipt:
        """From 0, worst, to 1, best."""
        return self._send(score(sample_id, value, idempotency_key), timeout)

    def correct(
        self, sample_id: str, text: str | bytes, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> FeedbackReceipt:
        """What the answer should have been."""
        return self._send(correction(sample_id, text, idempotency_key), timeout)

    def rank(
        self, sample_ids: Sequence[str], *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> FeedbackReceipt:
        """Two to nine answers to one prompt, best first."""
        return self._send(ranking(sample_ids, idempotency_key), timeout)


class AsyncFeedback:
    """Each method tries again until `timeout`, always with the same idempotency key."""

    def __init__(self, send: Callable[[Request, float | None], Awaitable[FeedbackReceipt]]) -> None:
        self._send = send

    async def thumb(
        self,
        sample_id: str,
        *,
        up: bool,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> FeedbackReceipt:
        """A thumb up or down."""
        return await self._send(thumb(sample_id, up, idempotency_key), timeout)

    async def score(
        self,
        sample_id: str,
        value: float,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> FeedbackReceipt:
        """From 0, worst, to 1, best."""
        return await self._send(score(sample_id, value, idempotency_key), timeout)

    async def correct(
        self,
        sample_id: str,
        text: str | bytes,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> FeedbackReceipt:
        """What the answer should have been."""
        return await self._send(correction(sample_id, text, idempotency_key), timeout)

    async def rank(
        self,
        sample_ids: Sequence[str],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> FeedbackReceipt:
        """Two to nine answers to one prompt, best first."""
        return await self._send(ranking(sample_ids, idempotency_key), timeout)


def thumb(sample_id: str, up: bool, idempotency_key: str | None) -> Request:
    """The wire form of a thumb."""
    return Request(idempotency_key=_key(idempotency_key), thumb=gateway_pb2.Thumb(sample_id=sample_id, up=up))


def score(sample_id: str, value: float, idempotency_key: str | None) -> Request:
    """The wire form of a score."""
    return Request(idempotency_key=_key(idempotency_key), score=gateway_pb2.Score(sample_id=sample_id, value=value))


def correction(sample_id: str, text: str | bytes, idempotency_key: str | None) -> Request:
    """The wire form of a correction."""
    better = gateway_pb2.Correction(sample_id=sample_id, text=text_to_bytes(text))
    return Request(idempotency_key=_key(idempotency_key), correction=better)


def ranking(sample_ids: Sequence[str], idempotency_key: str | None) -> Request:
    """The wire form of a ranking."""
    return Request(idempotency_key=_key(idempotency_key), ranking=gateway_pb2.Ranking(sample_ids=sample_ids))


def _key(idempotency_key: str | None) -> str:
    return new_idempotency_key() if idempotency_key is None else idempotency_key
