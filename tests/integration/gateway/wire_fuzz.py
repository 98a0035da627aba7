"""Protobuf messages that no library would write: made field by field from a descriptor, at the level of the wire.

Half of them are nearly right, or nothing would get past the first check.
"""

import random
import struct
import time
from collections.abc import Sequence

from google.protobuf.descriptor import Descriptor, FieldDescriptor

CANARY = "zanzibar7319"
USERS = ("ada", "bob", "eve", f"{CANARY}-user")
_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: 1,
    FieldDescriptor.TYPE_FLOAT: 5,
    FieldDescriptor.TYPE_STRING: 2,
    FieldDescriptor.TYPE_BYTES: 2,
    FieldDescriptor.TYPE_MESSAGE: 2,
}
_ODD_TEXTS: tuple[bytes, ...] = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\xf4\x90\x80\x80",
    "\u202e\u200b\ufeff".encode(),
    b"a\nb\x1b[0m",
    f"{CANARY} \x00".encode(),
    f"{CANARY} ".encode() + b"\xff",
    ("\U0001f600" * 50).encode(),
    b"%s%n{0}${jndi:ldap://x}'; DROP TABLE users; --",
    b"<|im_start|>system<eos>",
    b"A" * 129,
    b"A" * 40_000,
)
_ODD_NUMBERS = (0, 1, 2, 5, 17, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_ODD_FLOATS = (0.0, -0.0, 1.0, 2.0, -1.0, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"))


class Messages:
    """Makes messages; the same from the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sample_ids: list[str] = ["0" * 32]
        """Ids that exist, as far as known."""

    def make(self, kind: Descriptor) -> bytes:
        """One message."""
        draw = self.random.random()
        if draw < 0.5:
            return self._fields(kind, oddness=0.0)
        if draw < 0.7:
            return self._fields(kind, oddness=0.15)
        if draw < 0.85:
            return self._fields(kind, oddness=0.6)
        if draw < 0.92:
            message = self._fields(kind, oddness=0.1)
            return message[: self.random.randrange(len(message) + 1)]
        if draw < 0.96:
            return self._fields(kind, oddness=0.1) + self._unknown()
        return self.random.randbytes(self.random.choice((0, 1, 3, 20, 300)))

    def _fields(self, kind: Descriptor | None, *, oddness: float) -> bytes:
        if kind is None:
            return b""
        chosen: list[FieldDescriptor] = []
        for oneof in kind.oneofs:
            chosen.append(self.random.choice(oneof.fields))
        chosen += [field for field in kind.fields if field.containing_oneof is None]
        chosen = [field for field in chosen if not self._left_out(field, oddness)]
        if self.random.random() < oddness:
            self.random.shuffle(chosen)
        return b"".join(self._field(field, oddness) for field in chosen)

    def _left_out(self, field: FieldDescriptor, oddness: float) -> bool:
        if field.name == "messages":
            return self.random.random() < 0.9
        if field.name in ("user_id", "text", "idempotency_key", "sample_id", "organisation"):
            return self.random.random() < oddness
        if field.name in ("consent", "notice_version", "shown_at_seconds"):
            return self.random.random() < max(0.1, oddness / 2)
        return self.random.random() < 0.3

    def _field(self, field: FieldDescriptor, oddness: float) -> bytes:
        num = self.random.choice((0, 1, 2, 3)) if field.is_repeated else 1
        if field.is_repeated and self.random.random() < oddness / 10:
            num = 300
        return b"".join(self._value(field, oddness) for _ in range(num))

    def _value(self, field: FieldDescriptor, oddness: float) -> bytes:
        wire = _KINDS.get(field.type, 0)
        if self.random.random() < oddness / 5:
            return self._of_wire_type(field.number, self.random.choice((0, 1, 2, 5)))
        tag = varint(field.number << 3 | wire)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            return tag + counted(self._fields(field.message_type, oddness=oddness))
        if wire == 2:
            return tag + counted(self._text(field.name, oddness))
        if wire:
            number = self._float(field.name, oddness)
            return tag + struct.pack("<d" if wire == 1 else "<f", number)
        return tag + varint(self._number(field.name, oddness))

    def _text(self, name: str, oddness: float) -> bytes:
        if self.random.random() < oddness:
            return self.random.choice(_ODD_TEXTS)
        choices: dict[str, Sequence[str]] = {
            "user_id": USERS,
            "notice_version": ("1", "1", "1", "2"),
            "use_case": ("", "coding", CANARY),
            "organisation": ("",),
            "sample_id": (*self.sample_ids[-50:], *(f"{self.random.getrandbits(128):032x}" for _ in range(10))),
            "sample_ids": self.sample_ids[-4:],
            "stop": ("###", "\n"),
        }
        if name in choices:
            return self.random.choice(choices[name]).encode()
        if name == "idempotency_key":
            return f"{CANARY}-{self.random.randrange(3_000)}".encode()
        return f"{CANARY} write a poem about {self.random.randrange(5_000)}".encode()

    def _float(self, name: str, oddness: float) -> float:
        if self.random.random() < oddness and name != "value":
            return self.random.choice(_ODD_FLOATS)
        if name == "shown_at_seconds":
            return time.time() - self.random.choice((60, 60, 60, -3_600, 10**8))
        return self.random.choice((0.5, 1.0))

    def _number(self, name: str, oddness: float) -> int:
        if self.random.random() < oddness:
            return self.random.choice(_ODD_NUMBERS)
        return self.random.choice((1, 2, 3)) if name == "role" else self.random.choice((0, 1, 16))

    def _unknown(self) -> bytes:
        return self._of_wire_type(self.random.choice((15, 99, 2**29 - 1)), self.random.choice((0, 1, 2, 5)))

    def _of_wire_type(self, number: int, wire: int) -> bytes:
        body = {
            0: varint(self.random.choice(_ODD_NUMBERS)),
            1: self.random.randbytes(8),
            2: counted(self.random.choice(_ODD_TEXTS)),
            5: self.random.randbytes(4),
        }[wire]
        return varint(number << 3 | wire) + body


def varint(number: int) -> bytes:
    """Base 128, the low digits first."""
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def counted(body: bytes) -> bytes:
    """With its length before it."""
    return varint(len(body)) + body
