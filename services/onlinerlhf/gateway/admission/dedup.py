"""When a prompt repeats an earlier one: keyed digests of its prefixes, and no text. Pure; the admit script decides.

Compared is what the user wrote: the user's turns without registered templates, normalised and case-folded. A prompt is
a duplicate of an earlier one where
- all of it is the same, or it is the beginning of an earlier chat up to a turn's end;
- the longest shared rung of the ladder 128, 192, 288, 432, ... characters is at least half of it.
A chat that goes on from where an earlier prompt of the same owner ended takes its place, as long as that one waits.

InstructGPT removed prompts that share a long common prefix (Ouyang et al. 2022, appendix A).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

DIGEST_BYTES: Final = 8
"""Among 10 million digests a new prompt meets a strange one by chance once in 10^11 prompts."""
FIRST_RUNG: Final = 128
RUNG_FACTOR: Final = 1.5
RUNGS: Final = tuple(int(FIRST_RUNG * RUNG_FACTOR**step) for step in range(32))
"""Characters, up to tens of millions."""

_RUNG: Final = b"\x00rung"
_TURN: Final = b"\x00turn"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The digest of a text's first characters."""

    digest: bytes
    num_characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What of a prompt is compared."""

    whole: Prefix
    turns: tuple[Prefix, ...]
    """Up to the end of each turn but the last, shortest first."""
    rungs: tuple[Prefix, ...]
    """The ladder, shortest first."""

    @property
    def packed(self) -> bytes:
        """Digest and number of characters (4 bytes, most significant first) of the whole, the turns and the rungs."""
        return b"".join(
            prefix.digest + prefix.num_characters.to_bytes(4, "big")
            for prefix in (self.whole, *self.turns, *self.rungs)
        )


def fingerprint(contents: Sequence[str], key: bytes) -> Fingerprint:
    """Of the user's turns, each normalised and case-folded. One pass over the text."""
    # No normalised text holds a line feed.
    text = "\n".join(contents)
    turn_ends: list[int] = []
    for content in contents:
        turn_ends.append(len(content) + (turn_ends[-1] + 1 if turn_ends else 0))
    rung_ends = [rung for rung in RUNGS if rung <= len(text)]
    running = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES, person=b"dedup")
    turns: list[Prefix] = []
    rungs: list[Prefix] = []
    cuts = sorted({0, *turn_ends, *rung_ends})
    if cuts[-1] == 0:
        turns = [_prefix(running, _TURN, 0) for _ in turn_ends]
    for start, end in pairwise(cuts):
        running.update(text[start:end].encode("utf-8"))
        if end in turn_ends:
            turns.append(_prefix(running, _TURN, end))
        if end in rung_ends:
            rungs.append(_prefix(running, _RUNG, end))
    return Fingerprint(whole=turns[-1], turns=tuple(turns[:-1]), rungs=tuple(rungs))


def _prefix(running: "hashlib.blake2b", kind: bytes, num_characters: int) -> Prefix:
    here = running.copy()
    here.update(kind)
    return Prefix(here.digest(), num_characters)
