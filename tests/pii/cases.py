"""How the set is written: what must be found stands between « and »."""

import re
from dataclasses import dataclass

from onlinerlhf.gateway.pii import Finding, Kind

_MARK = re.compile("«(.+?)»", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A text and the one thing in it."""

    kind: Kind
    text: str
    start: int
    end: int

    def is_found(self, findings: list[Finding]) -> bool:
        """Some finding of the kind covers at least nine tenths of it, and little else."""
        return any(
            found.kind is self.kind
            and min(found.end, self.end) - max(found.start, self.start) >= 0.9 * (self.end - self.start)
            and found.end - found.start <= 1.25 * (self.end - self.start) + 4
            for found in findings
        )


def case(kind: Kind, marked: str) -> Case:
    """From a text with one mark."""
    match = _MARK.search(marked)
    if match is None:
        raise ValueError("a case needs something between « and »")
    start, inside = match.start(), match.group(1)
    text = marked[:start] + inside + marked[match.end() :]
    return Case(kind=kind, text=text, start=start, end=start + len(inside))
