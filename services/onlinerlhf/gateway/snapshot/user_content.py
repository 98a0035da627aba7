"""The words that are the user's own in a stored prompt. Pure.

A conversation is stored as paragraphs that each begin with a role. What all conversations of an application share, its
system text above all, must not make them duplicates of each other.
"""

import re

_TURN = re.compile(r"(?:^|\n\n)(system|user|assistant): ")


def user_content(text: str) -> str:
    """The user's turns of a conversation; of anything else, the text.

    A plain prompt that looks like a conversation loses no more than what it attributes to others, here alone.
    """
    if _TURN.match(text) is None:
        return text
    _, *parts = _TURN.split(text)
    turns = [words for role, words in zip(parts[::2], parts[1::2], strict=True) if role == "user"]
    return "\n\n".join(turns) or text
