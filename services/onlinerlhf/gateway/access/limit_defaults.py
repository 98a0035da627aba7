"""Which limits hold for a call, and the names under which its use is kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

from onlinerlhf.gateway.access.buckets import Dimension, Metered
from onlinerlhf.gateway.access.callers import Caller, KeyClass, Limits
from onlinerlhf.runtime.keys import RunKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDefaults:
    """What holds where a key says nothing else."""

    classes: Mapping[KeyClass, Limits]
    """Of a key, by its class."""
    user: Limits
    organisation: Limits

    def of(self, caller: Caller) -> tuple[Metered, ...]:
        """Whose use a call counts as; the key's first."""
        key = caller.key
        metered = [
            Metered(dimension=Dimension.KEY, subject=key.key_id, limits=self.of_key(key.key_class, key.limits)),
            Metered(dimension=Dimension.USER, subject=caller.owner, limits=self.user),
        ]
        if key.organisation:
            metered.append(Metered(dimension=Dimension.ORGANISATION, subject=caller.tenant, limits=self.organisation))
        return tuple(metered)

    def of_key(self, key_class: KeyClass, own: Limits | None) -> Limits:
        """A key's own numbers go over its class's, number by number."""
        default = self.classes[key_class]
        return default if own is None else _over(default, own)


@lru_cache(maxsize=1024)
def _over(default: Limits, own: Limits) -> Limits:
    numbers = {each.name: getattr(own, each.name) for each in fields(Limits)}
    return Limits(**{**asdict(default), **{name: number for name, number in numbers.items() if number is not None}})


def limit_keys(keys: RunKeys, dimension: Dimension, subject: str) -> tuple[str, str]:
    """Where a key's, user's or organisation's use is kept: the bucket, and the leases.

    Both vanish once nothing is used any more; they may be deleted at any time.
    """
    return keys.key("limit", dimension, subject), keys.key("limit", dimension, subject, "leases")


def defaults_key(keys: RunKeys) -> str:
    """What the run's gateways go by."""
    return keys.key("limit_defaults")


def dump_defaults(defaults: LimitDefaults) -> str:
    """As kept in Redis."""
    return json.dumps(asdict(defaults))


def load_defaults(text: bytes) -> LimitDefaults:
    """The inverse."""
    record = json.loads(text)
    return LimitDefaults(
        classes={KeyClass(name): Limits(**limits) for name, limits in record["classes"].items()},
        user=Limits(**record["user"]),
        organisation=Limits(**record["organisation"]),
    )
