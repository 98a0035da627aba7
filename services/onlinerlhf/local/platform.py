"""The plan of a platform on one machine: which processes, on which ports, with which settings.

    redis ◄── learner ◄── rollout-0 … rollout-n ◄── gateway
      ▲          ▲            reward
      └──────────┴── every room

Planning touches no process: it picks free loopback ports, writes `platform.toml`, and lists commands and environments.
"""

import json
import os
import socket
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.local.staleness import samples_ahead
from onlinerlhf.runtime.embedded_redis import redis_server_command

Sections = dict[str, dict[str, object]]
"""TOML sections by room."""

LOOPBACK = "127.0.0.1"
ROOMS = ("gateway", "rollout", "reward", "learner")
OWNED: Mapping[str, str] = {
    "run.id": "--run names the run",
    "run.redis_url": "--redis-url names the Redis",
    "gateway.listen": "--gateway-port chooses the port",
    "gateway.http_listen": "--http-port chooses the port",
    **{f"{room}.listen": "its port is chosen by `up`" for room in ("rollout", "reward", "learner")},
    "rollout.worker_id": "--workers says how many there are; `up` names them",
    "rollout.staging_dir": "it is in the run directory, which --home and --run choose",
}
"""Settings that `up` hands to a process in its environment, where no file could override them: what to use instead."""
WIDE_LIMITS: Mapping[str, object] = {
    "requests_per_minute": 1_000_000,
    "tokens_per_minute": 100_000_000,
    "max_concurrent": 10_000,
}
"""Of each user and organisation: on one's own machine one user sends everything, and the workers are the limit."""
MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of a unix socket on Linux, without its final zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSpec:
    """What to run."""

    run_dir: Path
    policy_dir: Path
    """The SFT policy: version 1, and the reference of the KL penalty."""
    reward_dir: Path
    run_id: str = "local"
    rollout_workers: int = 1
    redis_url: str | None = None
    """A Redis that somebody else runs. None: an embedded one with an append-only file in the run directory."""
    gateway_port: int | None = None
    """None: a free one."""
    http_port: int | None = None
    """Of the OpenAI-compatible front. None: a free one."""
    overrides: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Settings by section; they win over the plan's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """One process to start."""

    name: str
    address: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    drain_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformPlan:
    """Every process, and what they share."""

    spec: PlatformSpec
    redis_url: str
    http: str
    """Address of the OpenAI-compatible front."""
    processes: tuple[ProcessPlan, ...]
    sections: Sections
    socket_dir: Path
    """For vLLM's unix sockets, which a killed worker leaves behind; it is removed when the platform stops."""

    @property
    def config_path(self) -> Path:
        """The generated TOML."""
        return self.spec.run_dir / "platform.toml"

    def log_path(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.spec.run_dir / "logs" / f"{name}.log"

    @property
    def drain_order(self) -> tuple[tuple[str, ...], ...]:
        """Who takes work in stops first, who stores it last."""
        rollouts = tuple(plan.name for plan in self.processes if plan.name.startswith("rollout-"))
        return ("gateway",), rollouts, ("reward",), ("learner",), ("redis",)

    def write(self) -> None:
        """Make the directories and write the settings."""
        (self.spec.run_dir / "redis").mkdir(parents=True, exist_ok=True)
        self.socket_dir.mkdir(mode=0o700)
        self.config_path.write_text(dump_toml(self.sections))


def plan(spec: PlatformSpec) -> PlatformPlan:
    """Choose ports and settings."""
    check_model_dir(spec.policy_dir, "policy")
    check_model_dir(spec.reward_dir, "reward model")
    ports = free_ports()
    redis_port = next(ports)
    redis_url = spec.redis_url or f"redis://{LOOPBACK}:{redis_port}/0"
    learner, reward = _address(next(ports)), _address(next(ports))
    rollouts = [_address(next(ports)) for _ in range(spec.rollout_workers)]
    gateway, http = _address(spec.gateway_port or next(ports)), _address(spec.http_port or next(ports))
    environment = shared_environment(os.environ, spec, redis_url)
    # A run directory's path may be too long for a socket's.
    sockets = Path(tempfile.gettempdir()) / f"rlhf-{uuid4().hex[:8]}"
    processes = [
        _room("learner", "learner", learner, environment, {}),
        *(
            _room("rollout", f"rollout-{index}", address, environment, _worker(spec, index, sockets))
            for index, address in enumerate(rollouts)
        ),
        _room("reward", "reward", reward, environment, {}),
        _room("gateway", "gateway", gateway, environment, {"ONLINERLHF_GATEWAY__HTTP_LISTEN": http}),
    ]
    if spec.redis_url is None:
        processes.insert(0, _redis(spec, redis_port))
    sections = _sections(spec, learner=learner, rollouts=rollouts)
    return PlatformPlan(
        spec=spec, redis_url=redis_url, http=http, processes=tuple(processes), sections=sections, socket_dir=sockets
    )


def shared_environment(inherited: Mapping[str, str], spec: PlatformSpec, redis_url: str) -> dict[str, str]:
    """Environment of every room: the caller's, the run's, and one that keeps models local and threads few."""
    return {
        # As many threads as a room asks for, not as many as there are cores in each of four processes.
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **inherited,
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "ONLINERLHF_CONFIG": str(spec.run_dir / "platform.toml"),
        "ONLINERLHF_RUN__ID": spec.run_id,
        "ONLINERLHF_RUN__REDIS_URL": redis_url,
    }


def check_model_dir(path: Path, what: str) -> None:
    """A transformers directory: a config and weights."""
    if not (path / "config.json").is_file():
        raise ConfigError(f"{what} directory {path} has no config.json; `onlinerlhf bootstrap` makes small models")
    if not any(path.glob("*.safetensors")):
        raise ConfigError(f"{what} directory {path} has no *.safetensors weights")


def free_ports() -> Iterator[int]:
    """Loopback ports nobody listens on, no port twice."""
    taken: set[int] = set()
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            taken.add(port)
            yield port


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


def _sections(spec: PlatformSpec, *, learner: str, rollouts: Sequence[str]) -> Sections:
    target = f"ipv4:{','.join(rollouts)}"
    own: Sections = {
        "gateway": {
            "model_dir": spec.policy_dir,
            "rollout_target": target,
            "user_limits": WIDE_LIMITS,
            "organisation_limits": WIDE_LIMITS,
        },
        "rollout": {"model_dir": spec.policy_dir, "learner_target": learner},
        "reward": {"model_dir": spec.reward_dir},
        "learner": {
            "policy_dir": spec.policy_dir,
            "reward_dir": spec.reward_dir,
            "output_dir": spec.run_dir / "learner",
        },
    }
    sections = merge(own, spec.overrides)
    _check_groups(sections)
    sections["rollout"].setdefault("max_samples_ahead", samples_ahead(sections))
    return sections


def _check_groups(sections: Sections) -> None:
    """Refuses what the learner would refuse sample by sample."""
    estimator = sections["learner"].get("advantage_estimator", "gae")
    if estimator != "gae" and str(sections["rollout"].get("num_responses", 1)) == "1":
        raise ConfigError(
            f"learner.advantage_estimator {estimator} compares a prompt's responses: set rollout.num_responses above 1"
        )


def _address(port: int) -> str:
    return f"{LOOPBACK}:{port}"


def _worker(spec: PlatformSpec, index: int, sockets: Path) -> dict[str, str]:
    return {
        "ONLINERLHF_ROLLOUT__WORKER_ID": f"rollout-{index}",
        "ONLINERLHF_ROLLOUT__STAGING_DIR": str(spec.run_dir / "staging" / f"rollout-{index}"),
        **socket_environment(sockets),
    }


def socket_environment(directory: Path) -> dict[str, str]:
    """Has vLLM put its sockets, each named by a UUID, here instead of in the temporary directory; if they can be."""
    too_long = len(os.fsencode(directory / str(uuid4()))) > MAX_SOCKET_PATH_BYTES
    return {} if too_long else {"VLLM_RPC_BASE_PATH": str(directory)}


def _room(room: str, name: str, address: str, environment: Mapping[str, str], more: Mapping[str, str]) -> ProcessPlan:
    listen = {f"ONLINERLHF_{room.upper()}__LISTEN": address}
    return ProcessPlan(
        name=name,
        address=address,
        command=(sys.executable, "-m", f"onlinerlhf.{room}"),
        environment={**environment, **listen, **more},
        drain_seconds=30.0,
    )


def _redis(spec: PlatformSpec, port: int) -> ProcessPlan:
    return ProcessPlan(
        name="redis",
        address=_address(port),
        command=tuple(redis_server_command(spec.run_dir / "redis", port)),
        environment=dict(os.environ),
        drain_seconds=15.0,
    )
