"""Near-duplicates among texts: MinHash (Broder 1997) finds candidates, the exact Jaccard similarity decides.

    J(a, b) = |S(a) ∩ S(b)| / |S(a) ∪ S(b)|,   S(x) = all runs of `shingle_characters` characters of x, normalised

With b bands of r hashes, a pair of similarity J becomes a candidate with probability 1 - (1 - J^r)^b; bands are as long
as leaves that at 0.999 or more for the threshold (32 bands of 4 at 0.7). Characters and not words, for there are
languages without spaces. Pure.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rensa import RMinHash, RMinHashLSH

from onlinerlhf.gateway.admission.normalise import normalise

_RECALL: Final = 0.999
_MAX_COMPARED: Final = 64
"""Kept texts that one text is compared with, those that look most alike first: many texts of one template, all a little
too different to be left out, must not make this quadratic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicateRule:
    """When two texts are too much alike."""

    shingle_characters: int = 5
    num_permutations: int = 128
    threshold: float = 0.7
    """Jaccard similarity from which the later of two texts is left out."""
    seed: int = 1

    @property
    def num_bands(self) -> int:
        """The fewest that find the most: fewer bands are longer ones, and fewer candidates to compare."""
        divisors = (num for num in range(1, self.num_permutations) if self.num_permutations % num == 0)
        enough = (num for num in divisors if self.recall(num) >= _RECALL)
        return next(enough, self.num_permutations)

    @property
    def doubtful(self) -> float:
        """An estimate from so many hashes that is five standard deviations below the threshold, at most."""
        return float(self.threshold - 2.5 / self.num_permutations**0.5)

    def recall(self, num_bands: int) -> float:
        """How likely two texts just as similar as the threshold are to be compared."""
        num_hashes = self.num_permutations // num_bands
        return float(1.0 - (1.0 - self.threshold**num_hashes) ** num_bands)


def near_duplicates(texts: Iterable[str], rule: NearDuplicateRule) -> Iterator[int | None]:
    """For each text, in order: the number of a kept earlier text that it nearly repeats, or None, and it is kept.

    Only kept texts count: a chain of small changes does not drag everything out.
    """
    index = RMinHashLSH(rule.threshold, rule.num_permutations, rule.num_bands)
    kept: dict[int, tuple[str, RMinHash]] = {}
    for number, text in enumerate(texts):
        folded = fold(text)
        own = shingles(folded, rule.shingle_characters)
        sketch = RMinHash(num_perm=rule.num_permutations, seed=rule.seed)
        sketch.update(sorted(own))
        estimates = ((sketch.jaccard(kept[candidate][1]), candidate) for candidate in set(index.query(sketch)))
        likely = sorted((-estimate, candidate) for estimate, candidate in estimates if estimate >= rule.doubtful)
        alike = (
            candidate
            for _, candidate in likely[:_MAX_COMPARED]
            if jaccard(own, shingles(kept[candidate][0], rule.shingle_characters)) >= rule.threshold
        )
        repeated = next(alike, None)
        if repeated is None:
            kept[number] = folded, sketch
            index.insert(number, sketch)
        yield repeated


def fold(text: str) -> str:
    """As dedup sees it: width, case, whitespace and invisible characters do not count."""
    return unicodedata.normalize("NFKC", normalise(text).casefold())


def shingles(text: str, num_characters: int) -> set[str]:
    """All runs of so many characters; of a shorter text, the text."""
    return {text[start : start + num_characters] for start in range(max(1, len(text) - num_characters + 1))}


def jaccard(a: set[str], b: set[str]) -> float:
    """Of two sets that are not empty: from 0, nothing in common, to 1, equal."""
    num_common = len(a & b)
    return num_common / (len(a) + len(b) - num_common)
