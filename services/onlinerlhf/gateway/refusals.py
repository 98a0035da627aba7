"""The gateway's refusals beside those of core. The class, in snake case, is the word that clients and metrics see."""

from onlinerlhf.core.errors import AlreadyExists, ConsentMissing, LimitReached


class Duplicate(AlreadyExists):
    """The same text was admitted before, from whomever."""


class NoConsent(ConsentMissing):
    """No consent to learn from the prompt."""


class UserCap(LimitReached):
    """The user has as many admitted prompts as one user may have."""


class PoolFull(LimitReached):
    """The pool holds as many new prompts as it may; later there is room again."""
