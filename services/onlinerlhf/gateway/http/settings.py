"""Settings of the HTTP front, out of the gateway's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from onlinerlhf.gateway.config import GatewayConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSettings:
    """What the front takes and how long it waits."""

    model_name: str
    """The one model there is."""
    default_max_tokens: int
    answer_seconds: float
    """Longest time an answer may take to be sampled."""
    feedback_seconds: float
    """Longest wait for feedback to be stored."""
    max_body_bytes: int
    body_seconds: float = 30.0
    """Longest time in which a request's head, and then its body, must have come."""
    max_head_bytes: int = 65_536
    """Request line and headers together."""
    keep_alive_seconds: int = 65
    """How long an idle connection is kept; longer than load balancers' usual 60."""
    max_connections: int = 4_096
    drain_seconds: float = 18.0
    """How long requests in flight may take to finish at the end."""

    @property
    def stream_seconds(self) -> float:
        """Longest time a client may take to read an answer: a little more, so that it hears of a time-out."""
        return 1.1 * self.answer_seconds + 1.0

    @classmethod
    def of(cls, config: "GatewayConfig") -> Self:
        """The front's part of the gateway's settings."""
        return cls(
            model_name=config.model_name,
            default_max_tokens=config.default_max_tokens,
            answer_seconds=config.answer_seconds,
            feedback_seconds=config.admit_wait_seconds,
            max_body_bytes=config.max_message_bytes,
            # Before the room's own drain runs out.
            drain_seconds=max(0.9 * config.drain_seconds, 0.5),
        )
