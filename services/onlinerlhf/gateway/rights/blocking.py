"""Whose data may not be used any more, as `keys.blocked` says it. The scripts have the same rule in Lua. Pure."""

import re

_WITHDRAWN = re.compile(r"withdrawn:(\d+)")
ERASED = "erased"


def is_blocked(word: str | None, *, consent_second: float) -> bool:
    """Whether data under consent of this second is blocked by an owner's entry. A word that nobody knows blocks."""
    if word is None:
        return False
    withdrawn = _WITHDRAWN.fullmatch(word)
    return withdrawn is None or int(withdrawn.group(1)) >= int(consent_second)
