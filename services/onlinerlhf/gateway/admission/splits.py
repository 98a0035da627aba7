"""Who is learned from and who is kept for validation or testing: decided once for an organisation, or for a user where
there is none, so nobody is on two sides."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from redis.asyncio import Redis

from onlinerlhf.core.errors import StartupError
from onlinerlhf.gateway.access.identity import Digests
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command

_HEX_DIGITS: Final = 13


class Split(StrEnum):
    """A side."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The shares, and the salt that makes them fall one way and no other."""

    salt: str
    valid_share: float
    test_share: float

    def of(self, digests: Digests, tenant: str) -> Split:
        """The side of a tenant: a keyed hash of it, uniform in [0, 1), against the shares."""
        place = unit_interval(digests.of("split", self.salt.encode(), tenant.encode()))
        if place < self.test_share:
            return Split.TEST
        return Split.VALID if place < self.test_share + self.valid_share else Split.TRAIN

    def lineage(self, digests: Digests) -> str:
        """Equal where every tenant falls on the same side."""
        return digests.of("lineage", self.salt.encode(), f"{self.valid_share!r} {self.test_share!r}".encode())


def unit_interval(digest: str) -> float:
    """The first 52 bits of a hexadecimal digest as a number in [0, 1)."""
    return leading_bits(digest) / 16**_HEX_DIGITS


def leading_bits(digest: str) -> int:
    """The first 52 bits of a hexadecimal digest: as many as a Redis score holds exactly."""
    return int(digest[:_HEX_DIGITS], 16)


async def check_lineage(redis: Redis, keys: RunKeys, splits: Splits, digests: Digests) -> None:
    """The run's first gateway writes down how it splits; one that would split otherwise raises StartupError."""
    name, mine = keys.key("gateway", "split_lineage"), splits.lineage(digests)
    await command(redis, "SET", name, mine, "NX")
    if str(await command(redis, "GET", name), "ascii") != mine:
        raise StartupError(
            "split_salt, valid_share, test_share and hash_key must stay as they were when this run began, or users who"
            " were learned from would be tested on; start a new run to change them"
        )
