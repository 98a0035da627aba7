"""What an API key looks like. Pure.

    orlhf_pg_ 3kX09aQz81Lm <32 characters> 0aB3xY
    prefix    key id       secret          checksum

The prefix is fixed, so that scanners find a key that leaked; `pg` is a playground key, `pr` a production one. The
checksum is the CRC-32 of everything before it in base 62: a mistyped key is told from a wrong one without a look-up,
and a scanner has no false alarms. Key id and secret are random characters of base 62.

At rest there is only the SHA-256 of the whole key. It needs neither salt nor a slow hash: the secret has
32 log2(62) = 190 bits of entropy, so nobody can search for it, and no two keys share it.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import Final

from onlinerlhf.gateway.access.callers import KeyClass

BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEY_ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 32
CHECKSUM_LENGTH: Final = 6
_WORDS: Final = {KeyClass.PLAYGROUND: "pg", KeyClass.PRODUCTION: "pr"}
_CLASSES: Final = {word: key_class for key_class, word in _WORDS.items()}
_FORM: Final = re.compile(
    rf"orlhf_(pg|pr)_([0-9A-Za-z]{{{KEY_ID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH}}}([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyText:
    """A key as its holder sends it."""

    key_class: KeyClass
    key_id: str
    text: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """What is stored of it."""
        return hashlib.sha256(self.text.encode("ascii")).digest()


def new_key(key_class: KeyClass) -> KeyText:
    """Drawn from the system's secure randomness."""
    key_id = "".join(secrets.choice(BASE62) for _ in range(KEY_ID_LENGTH))
    secret = "".join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH))
    body = f"orlhf_{_WORDS[key_class]}_{key_id}{secret}"
    return KeyText(key_class=key_class, key_id=key_id, text=body + checksum(body))


def parse(text: str | None) -> KeyText | None:
    """None where this is no key, whatever it is instead."""
    match = _FORM.fullmatch(text) if text is not None else None
    if text is None or match is None or checksum(text[:-CHECKSUM_LENGTH]) != match[3]:
        return None
    return KeyText(key_class=_CLASSES[match[1]], key_id=match[2], text=text)


def checksum(body: str) -> str:
    """CRC-32 in base 62, most significant digit first, padded with zeros."""
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits
