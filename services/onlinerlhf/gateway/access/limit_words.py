"""What a caller is told about a limit: whose, of what, and when to come again."""

from typing import Final

from onlinerlhf.core.errors import InvalidInput, LimitReached
from onlinerlhf.gateway.access.buckets import Kind, Metered, Refusal

_WORDS: Final = {
    Kind.REQUESTS: "requests a minute",
    Kind.TOKENS: "tokens a minute",
    Kind.CONCURRENCY: "answers at a time",
    Kind.DAILY_REQUESTS: "requests a day",
    Kind.DAILY_TOKENS: "tokens a day",
}


def check_fits(metered: Metered, num_tokens: int) -> None:
    """Raises InvalidInput where no waiting would help."""
    limits = metered.limits
    # One request and one answer at a time always fit.
    for kind, limit in ((Kind.TOKENS, limits.tokens_per_minute), (Kind.DAILY_TOKENS, limits.tokens_per_day)):
        if limit is not None and num_tokens > limit:
            raise InvalidInput(
                f"{metered.dimension} {_plain(kind)}: this call needs {num_tokens:,}, and the limit is {limit:,} "
                f"{_WORDS[kind]}; waiting does not help",
                reason="exceeds_quota",
            )


def limit_reached(refusal: Refusal) -> LimitReached:
    """What the caller is told, and when to come again."""
    # Rounded up to what the metadata can tell, so that a client that waits so long is not refused again.
    seconds = -(-refusal.wait_micros // 1000) / 1000
    return LimitReached(
        f"{refusal.dimension} {_plain(refusal.kind)}: the limit of {_WORDS[refusal.kind]} is reached; "
        f"try again in {seconds:.3f} s",
        retry_after_seconds=seconds,
    )


def _plain(kind: Kind) -> str:
    return kind.replace("_", " ")
