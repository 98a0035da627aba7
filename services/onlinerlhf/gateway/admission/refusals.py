"""The gateway's refusals beside those of core. The class, in snake case, is the word that clients and metrics see."""

from onlinerlhf.core.errors import LimitReached


class PoolFull(LimitReached):
    """The pool holds as many new prompts as it may; later there is room again."""
