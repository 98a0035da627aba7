"""When two prompts count as the same, and what a text or name looks like in a key: never like itself. Pure."""

import hashlib
import unicodedata


def normalise(text: str) -> str:
    """Text as a reader sees it: compatibility forms folded (NFKC), invisible format characters (Cf) gone, runs of
    whitespace one space."""
    folded = unicodedata.normalize("NFKC", _visible(text))
    return " ".join(_visible(folded).split())


def is_blank(text: str) -> bool:
    """Whether nothing would be left after normalisation. Stops at the first visible character."""
    return all(character.isspace() or unicodedata.category(character) == "Cf" for character in text)


def text_digest(text: str, key: bytes) -> str:
    """Equal for texts that differ only in case, whitespace, width or invisible characters."""
    folded = unicodedata.normalize("NFKC", normalise(text).casefold())
    return keyed_digest(folded.encode("utf-8"), key)


def keyed_digest(value: bytes, key: bytes) -> str:
    """128 bits of BLAKE2b in hexadecimal; without the key nobody can test a guess against it."""
    return hashlib.blake2b(value, digest_size=16, key=key).hexdigest()


def _visible(text: str) -> str:
    if text.isascii():
        return text
    return "".join(character for character in text if unicodedata.category(character) != "Cf")
