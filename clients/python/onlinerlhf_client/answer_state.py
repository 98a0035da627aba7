"""What is known of an answer while its tokens come: the part that both token streams share."""

from collections.abc import Sequence

import grpc

from onlinerlhf_client.exceptions import ServerError, Unavailable
from onlinerlhf_client.types import Answer, Completion, Receipt, Token


class AnswerState:
    """Takes the events of an answer, in order."""

    def __init__(self) -> None:
        self._started = False
        self._receipt: Receipt | None = None
        self._completion: Completion | None = None

    @property
    def receipt(self) -> Receipt:
        """The answer's sample id; known with the first token."""
        if self._receipt is None:
            raise ServerError("the receipt is not known before the first token")
        return self._receipt

    @property
    def completion(self) -> Completion:
        """Finish reason and policy versions; known after the last token."""
        if self._completion is None:
            raise ServerError("the completion is not known before the last token")
        return self._completion

    def _take(self, event: Receipt | Token | Completion) -> Token | None:
        """Keep what the event tells; the token, if it is one."""
        match event:
            case Receipt():
                self._receipt = event
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
            logprobs=tuple(logprob for token in tokens for logprob in token.logprobs),
            completion=self.completion,
            receipt=self.receipt,
        )
