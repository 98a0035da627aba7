"""The bookkeeping of `submit_many`: which submissions still wait for their reply, in which order."""

from collections import deque
from collections.abc import Sequence

from onlinerlhf.v1 import gateway_pb2
from onlinerlhf_client.codec import result_from_proto
from onlinerlhf_client.exceptions import LimitReached
from onlinerlhf_client.retries import Budget
from onlinerlhf_client.types import Submission, SubmitResult


class Window:
    """Submissions sent and not yet answered. After a broken stream all of them go out again, with their keys."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a window of {size} submissions; at least 1 is needed")
        self._size = size
        self._unanswered: deque[Submission] = deque()

    @property
    def unanswered(self) -> Sequence[Submission]:
        """Oldest first."""
        return tuple(self._unanswered)

    @property
    def has_room(self) -> bool:
        """Whether another one may go out."""
        return len(self._unanswered) < self._size

    def __bool__(self) -> bool:
        return bool(self._unanswered)

    def add(self, submission: Submission) -> None:
        """It goes out now."""
        self._unanswered.append(submission)

    def settle(self, reply: gateway_pb2.SubmitPromptsReply, budget: Budget) -> SubmitResult:
        """The oldest one's result. One that may succeed later stays, and its error is raised.

        A limit that lasts longer than the caller would wait concerns its submission only: a result like a refusal.
        """
        result = result_from_proto(self._unanswered[0], reply)
        error = result.error
        too_long = isinstance(error, LimitReached) and not budget.has_time_for(error.retry_after_seconds or 0.0)
        if error is not None and error.retryable and not too_long:
            raise error
        self._unanswered.popleft()
        return result
