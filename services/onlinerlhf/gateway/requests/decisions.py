"""One record a request: who asked (by key id and digest), what was decided and why, in how many tokens. Never text."""

import logging
import time
from collections.abc import Sequence
from functools import cache

from prometheus_client import Counter

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.access.callers import ApiKey, Caller
from onlinerlhf.runtime.statuses import status_of

log = logging.getLogger("onlinerlhf.decisions")


class Decision:
    """Collects what is decided on one request's way, and is written once."""

    def __init__(self, *, kind: str) -> None:
        self._started = time.monotonic()
        self._kind = kind
        self._record: dict[str, object] = {"kind": kind}

    def key(self, key: ApiKey) -> None:
        """The API key is good."""
        self._record |= {"key_id": key.key_id, "key_class": key.key_class.value}

    def opened(self, caller: Caller, sample_ids: Sequence[str], *, num_prompt_tokens: int) -> None:
        """Every check of the request's own has passed."""
        self._record |= {
            "owner": caller.owner,
            "sample_ids": list(sample_ids),
            "num_prompt_tokens": num_prompt_tokens,
        }

    def refused(self, error: OnlineRLHFError) -> None:
        """Nothing was done."""
        self.write(outcome="refused", reason=status_of(error)[1])

    def write(self, *, outcome: str, **more: object) -> None:
        """The end of it."""
        _counter(self._kind, outcome, str(more.get("reason", ""))).inc()
        if log.isEnabledFor(logging.INFO):
            # Made by hand: where in the code this is says nothing, and looking it up costs more than all else here.
            record = logging.LogRecord(log.name, logging.INFO, __file__, 0, "decision", None, None)
            seconds = round(time.monotonic() - self._started, 4)
            record.__dict__.update(self._record, outcome=outcome, seconds=seconds, **more)
            log.handle(record)


@cache
def _counter(kind: str, outcome: str, reason: str) -> Counter:
    """All three are words of our own."""
    return metrics.REQUESTS.labels(kind=kind, outcome=outcome, reason=reason)
