"""Whether the rollout workers can be reached: for logs and metrics, not for readiness.

A gateway without workers still admits prompts and still knows where samples are, so it stays ready; a user's answer
fails with UNAVAILABLE instead. `redis` and `tokenizer` are the components of readiness.
"""

import asyncio
import logging

import grpc

from onlinerlhf.runtime import metrics
from onlinerlhf.runtime.tasks import set_within

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# Neither says anything yet.
_UNDECIDED = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


class RolloutReach:
    """Watches the user lane's channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._gauge = metrics.COMPONENT_UP.labels("gateway", "rollout")

    async def run(self, stop: asyncio.Event) -> None:
        """Report each change until `stop`."""
        was_up: bool | None = None
        while not stop.is_set():
            state = self._channel.get_state(try_to_connect=True)
            is_up = state is grpc.ChannelConnectivity.READY
            if state not in _UNDECIDED and is_up != was_up:
                was_up = is_up
                self._gauge.set(is_up)
                log.log(
                    logging.INFO if is_up else logging.WARNING,
                    "rollout workers can be reached" if is_up else "no rollout worker can be reached: answers fail",
                )
            await set_within(stop, _LOOK_SECONDS)
