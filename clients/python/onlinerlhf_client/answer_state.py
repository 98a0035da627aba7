"""What is known of an answer while its tokens come: the part that both token streams share."""

from collections.abc import Sequence

import grpc

from onlinerlhf_client.exceptions import ServerError, Unavailable
from onlinerlhf_client.types import Admission, Answer, Completion, Token


class AnswerState:
    """Takes the events of an answer, in order."""

    def __init__(self) -> None:
        self._started = False
        self._admission: Admission | None = None
        self._completion: Completion | None = None

    @property
    def admission(self) -> Admission:
        """What became of the training offer; known with the first token."""
        if self._admission is None:
            raise ServerError("the admission is not known before the first token")
        return self._admission

    @property
    def completion(self) -> Completion:
        """Finish reason and policy versions; known after the last token."""
        if self._completion is None:
            raise ServerError("the completion is not known before the last token")
        return self._completion

    def _take(self, event: Admission | Token | Completion) -> Token | None:
        """Keep what the event tells; the token, if it is one."""
        match event:
            case Admission():
                self._admission = event
            case Completion():
                self._completion = event
            case Token():
                self._started = True
                return event
        return None

    def _check_complete(self) -> None:
        if self._completion is None:
            raise Unavailable("the answer ended without a completion", code=grpc.StatusCode.UNAVAILABLE)

    def _whole(self, tokens: Sequence[Token]) -> Answer:
        """The answer that all its tokens make."""
        return Answer(
            text="".join(token.text for token in tokens),
            token_ids=tuple(token_id for token in tokens for token_id in token.token_ids),
            completion=self.completion,
            admission=self.admission,
        )
