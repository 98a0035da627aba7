"""When two prompts count as the same, and what a text or name looks like in a key: never like itself. Pure."""

import hashlib
import re
import unicodedata
from typing import Final

# Category Cf: invisible format characters, as of Unicode 15. A unit test holds the list against the tables.
_FORMAT: Final = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]+"
)


def normalise(text: str) -> str:
    """Text as a reader sees it: compatibility forms folded (NFKC), invisible format characters (Cf) gone, runs of
    whitespace one space."""
    if text.isascii():
        return " ".join(text.split())
    folded = unicodedata.normalize("NFKC", _FORMAT.sub("", text))
    return " ".join(_FORMAT.sub("", folded).split())


def comparable(text: str) -> str:
    """Equal for texts that differ only in case, whitespace, width or invisible characters."""
    folded = normalise(text).casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFKC", folded)


def is_blank(text: str) -> bool:
    """Whether nothing would be left after normalisation."""
    return not (text if text.isascii() else _FORMAT.sub("", text)).strip()


def keyed_digest(value: bytes, key: bytes) -> str:
    """128 bits of BLAKE2b in hexadecimal; without the key nobody can test a guess against it."""
    return hashlib.blake2b(value, digest_size=16, key=key).hexdigest()
