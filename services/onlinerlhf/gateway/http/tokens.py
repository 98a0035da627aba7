"""Tokens as clients read them."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, Protocol

_INCOMPLETE: Final = "\ufffd"
_MAX_CHARACTER_TOKENS: Final = 4
"""A UTF-8 character has at most 4 bytes, and a token at least one."""


class Decoder(Protocol):
    """What is needed of a tokenizer."""

    def decode(self, ids: list[int], skip_special: bool = True) -> str:
        """Text of token ids."""


class TokenTexts:
    """Texts of single tokens, remembered."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.text = lru_cache(maxsize=65_536)(self._decode)
        """What a token decodes to by itself, special tokens by their names."""

    def raw(self, token_id: int) -> list[int] | None:
        """UTF-8 of a token; None where it is a part of a character."""
        text = self.text(token_id)
        return None if _INCOMPLETE in text else list(text.encode())

    def name(self, token_id: int) -> str:
        """Different for different tokens, as far as texts are: parts of characters all look the same."""
        text = self.text(token_id)
        return f"token_id:{token_id}" if _INCOMPLETE in text else text

    def all(self, token_ids: Sequence[int]) -> str:
        """Text of many, special tokens by their names."""
        return self._decoder.decode(list(token_ids), False)

    def offsets(self, token_ids: Iterable[int], *, start: int) -> list[int]:
        """Where in the text each token begins, in characters; parts of one character begin where it does."""
        offsets: list[int] = []
        at, open_ids = start, list[int]()
        for token_id in token_ids:
            offsets.append(at)
            open_ids.append(token_id)
            text = self.text(token_id) if len(open_ids) == 1 else self.all(open_ids)
            if not text.endswith(_INCOMPLETE) or len(open_ids) == _MAX_CHARACTER_TOKENS:
                at += len(text)
                open_ids.clear()
        return offsets

    def _decode(self, token_id: int) -> str:
        return self._decoder.decode([token_id], False)
