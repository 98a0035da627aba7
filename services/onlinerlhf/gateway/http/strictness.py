"""What every request body has in common: exact types, no unknown fields, and refusals that do not repeat the input."""

import re
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

UNKNOWN: Final = "unknown_parameter"
UNSUPPORTED: Final = "unsupported_parameter"

ANYTHING: Final = object()
"""Stands for every value: the field says nothing about the answer."""

_FIELD_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.IGNORECASE)


def shown(name: str) -> str:
    """A field's name, or nothing: a client may have put a text or a secret where a name belongs."""
    return name if _FIELD_NAME.fullmatch(name) else ""


class StrictModel(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(strict=True, extra="forbid")

    tolerated: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields of OpenAI's that are not ours, by the values that change nothing: these are read over, others refused."""

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_understood(cls, data: Any) -> Any:
        """Stops at the first offence: a body may hold a hundred thousand."""
        if not isinstance(data, dict):
            return data
        known = {}
        for name, value in data.items():
            if name in cls.model_fields:
                known[name] = value
            elif name not in cls.tolerated:
                raise PydanticCustomError(UNKNOWN, "unknown parameter", {"param": shown(name)})
            elif ANYTHING not in cls.tolerated[name] and value not in cls.tolerated[name]:
                raise PydanticCustomError(UNSUPPORTED, "this value is not supported here", {"param": shown(name)})
        return known
