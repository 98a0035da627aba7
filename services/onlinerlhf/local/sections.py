"""Settings by section, as `onlinerlhf up` takes them from a file and its command line and hands them to the rooms."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from onlinerlhf.core.errors import ConfigError

Sections = dict[str, dict[str, object]]
"""TOML sections by room."""

ROOMS = ("gateway", "rollout", "reward", "learner")
OWNED: Mapping[str, str] = {
    "run.id": "--run names the run",
    "run.redis_url": "--redis-url names the Redis",
    "gateway.listen": "--gateway-port chooses the port",
    "gateway.http_listen": "--http-port chooses the port",
    **{f"{room}.listen": "its port is chosen by `up`" for room in ("rollout", "reward", "learner")},
    "rollout.worker_id": "--rollout-workers says how many there are; `up` names them",
    "rollout.staging_dir": "it is in the run directory, which --home and --run choose",
}
"""Settings that `up` hands to a process in its environment, where no file could override them: what to use instead."""


def merge(base: Mapping[str, Mapping[str, object]], over: Mapping[str, Mapping[str, object]]) -> Sections:
    """Sections of both; where both set a key, `over` wins."""
    merged: Sections = {section: dict(values) for section, values in base.items()}
    for section, values in over.items():
        merged.setdefault(section, {}).update(values)
    return merged


def read_config(path: Path) -> Sections:
    """A user's TOML file, as overrides."""
    try:
        record = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return checked_sections(record, str(path))


def parse_setting(text: str) -> Sections:
    """`section.key=value` from the command line; the value is TOML, or a string where it is not."""
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ConfigError(f"{name!r} is not section.key=value, as in learner.batch_size=64")
    try:
        parsed: object = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return checked_sections({section: {key: parsed}}, name)


def checked_sections(record: Mapping[str, object], where: str) -> Sections:
    """Sections with a name some process reads, without what `up` owns; either would otherwise be ignored in silence."""
    sections: Sections = {}
    for section, values in record.items():
        if section not in ("run", *ROOMS) or not isinstance(values, dict):
            raise ConfigError(f"{where}: [{section}] is not one of [run], [{'], ['.join(ROOMS)}]")
        for key in values:
            if instead := OWNED.get(f"{section}.{key}"):
                raise ConfigError(f"{where}: {section}.{key} is set by `onlinerlhf up` itself: {instead}")
        sections[section] = values
    return sections


def dump_toml(sections: Sections) -> str:
    """TOML text. Strings are written as JSON, which TOML reads the same."""
    blocks = (
        "\n".join([f"[{section}]", *(f"{key} = {_toml_value(value)}" for key, value in values.items())])
        for section, values in sections.items()
    )
    return "\n\n".join(blocks) + "\n"


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value))
