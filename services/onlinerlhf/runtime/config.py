"""Settings of a process: defaults < TOML file < environment. Unknown keys fail and are named.

The file (argument, or ONLINERLHF_CONFIG) has a table a section: [run], [gateway], … One variable a key overrides it:
ONLINERLHF_GATEWAY__MAX_PROMPT_BYTES=1000. A key that may be absent (None) is switched off by "none".
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.runtime.certificates import CertificateFiles, ClientTls

PREFIX: Final = "ONLINERLHF_"
SECTIONS: Final = ("run", "gateway", "rollout", "reward", "learner", "scaler")
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


class Section(BaseModel):
    """One table of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _none_is_spelled_out(cls, values: Any) -> Any:
        """Neither TOML nor the environment has a null."""
        optional = {name for name, field in cls.model_fields.items() if NoneType in get_args(field.annotation)}
        return {key: None if key in optional and value == "none" else value for key, value in dict(values).items()}


class RunConfig(Section):
    """What all processes of a run share: section [run]."""

    id: str = Field(default="local", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """Names the run's keys in Redis."""
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")


class ServiceConfig(Section):
    """What every room's section has."""

    listen: str = "127.0.0.1:0"
    """gRPC address; port 0 picks a free one, which the `listening` log line names."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Prometheus port on the host of `listen`; 0: off."""
    drain_seconds: float = Field(default=20.0, ge=0)
    """How long work in hand may take to finish after SIGTERM."""
    max_message_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1024)
    max_call_seconds: float = Field(default=600.0, gt=0)
    """Deadline of a call that brings none."""

    health_listen: str | None = None
    """Plaintext gRPC address that serves grpc.health.v1 and nothing else, for probes that cannot speak TLS."""
    tls_cert: Path | None = None
    """PEM chain, this room's first: the server speaks TLS with it, and calls to other rooms present it."""
    tls_key: Path | None = None
    tls_ca: Path | None = None
    """PEM authorities that other rooms, and where they need certificates clients, are verified with."""
    require_client_certificate: bool | None = None
    """Whether callers must present a certificate of tls_ca. None: they must where tls_ca is set."""
    max_connection_age_seconds: float | None = Field(default=None, gt=0)
    """Age, give or take a tenth, at which a connection takes no more calls: clients then look their target up anew."""
    max_connection_age_grace_seconds: float | None = Field(default=None, gt=0)
    """How long calls on such a connection may go on. None: max_call_seconds."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: one of them is not set")
        if self.tls_ca is not None and self.tls_cert is None:
            raise ValueError("tls_ca without tls_cert and tls_key would leave this room's own server without TLS")
        if self.require_client_certificate and self.tls_ca is None:
            raise ValueError("require_client_certificate needs tls_ca to verify certificates with")
        return self

    @property
    def needs_client_certificates(self) -> bool:
        """Whether this room's servers refuse callers without a certificate of tls_ca."""
        required = self.require_client_certificate
        return self.tls_ca is not None if required is None else required

    @property
    def connection_grace_seconds(self) -> float:
        """How long calls may outlive max_connection_age_seconds."""
        return self.max_connection_age_grace_seconds or self.max_call_seconds

    def server_certificates(self, role: str) -> CertificateFiles | None:
        """What this room's servers speak TLS with. None: plaintext. Raises StartupError where files are of no use."""
        if self.tls_cert is None:
            return None
        return CertificateFiles(role=role, cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca)

    def client_tls(self) -> ClientTls | None:
        """How this room calls others: with its own certificate, verifying theirs. None: without TLS."""
        if self.tls_cert is None:
            return None
        return ClientTls(cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca)


C = TypeVar("C", bound=Section)


def load(section: str, model: type[C], *, path: Path | None = None) -> tuple[RunConfig, C]:
    """Read [run] and one room's section. Raises ConfigError, which names the key."""
    if path is None and (from_environment := os.environ.get(PREFIX + "CONFIG")):
        path = Path(from_environment)
    tables = _read(path)
    return _section("run", RunConfig, tables, path), _section(section, model, tables, path)


def describe(run: RunConfig, config: Section) -> dict[str, Any]:
    """The resolved settings for the one log line about them; secrets are masked."""
    return {"run": run.model_dump(mode="json"), "config": config.model_dump(mode="json")}


def _read(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for name, table in tables.items():
        if name not in SECTIONS:
            raise ConfigError(f"unknown section [{name}] in {path}; there are: {', '.join(SECTIONS)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{name} in {path} is not a section")
    return tables


def _section(name: str, model: type[C], tables: Mapping[str, Any], path: Path | None) -> C:
    prefix = f"{PREFIX}{name.upper()}__"
    overrides = {
        key.removeprefix(prefix).lower(): _parse(raw) for key, raw in os.environ.items() if key.startswith(prefix)
    }
    try:
        return model.model_validate({**tables.get(name, {}), **overrides})
    except ValidationError as error:
        # The value itself stays out of the message: it may be a secret.
        problems = []
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            key = ".".join(str(part) for part in problem["loc"])
            first = str(problem["loc"][0]) if problem["loc"] else ""
            where = f"environment variable {prefix}{first.upper()}" if first in overrides else f"{path or 'defaults'}"
            what = {"extra_forbidden": "unknown key", "missing": "is required"}.get(problem["type"], problem["msg"])
            problems.append(f"[{name}] {key}: {what} ({where})")
        raise ConfigError("; ".join(problems)) from None


def _parse(raw: str) -> Any:
    """Lists and tables come as JSON; pydantic reads all else from the string."""
    if raw[:1] in ("[", "{"):
        try:
            return json.loads(raw)
        except json.JSONDecodeError:
            return raw
    return raw
