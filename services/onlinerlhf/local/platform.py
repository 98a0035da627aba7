"""The plan of a platform on one machine: which processes, on which ports, with which settings.

    redis ◄── learner ◄── rollout-0 … rollout-n ◄── gateway
      ▲          ▲            reward
      └──────────┴── every room

Planning touches no process: it picks free loopback ports, writes `platform.toml`, and lists commands and environments.
Rollout workers that `onlinerlhf scale` may add later have their place in it too: the gateway knows their addresses from
the start, and connects when one answers there.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.local.ports import LOOPBACK, free_ports
from onlinerlhf.local.sections import Sections, dump_toml, merge
from onlinerlhf.local.staleness import samples_ahead
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.embedded_redis import redis_server_command

WIDE_LIMITS: Mapping[str, object] = {
    "requests_per_minute": 1_000_000,
    "tokens_per_minute": 100_000_000,
    "max_concurrent": 10_000,
}
"""Of each user and organisation: on one's own machine one user sends everything, and the workers are the limit."""
DEFAULT_MAX_WORKERS = 8
DRAIN_MARGIN_SECONDS = 10.0
"""From the end of a room's own drain_seconds, when it closes what it has open, to SIGKILL."""
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
    """At the start; `onlinerlhf scale` changes it."""
    max_rollout_workers: int = DEFAULT_MAX_WORKERS
    """As many ports are kept."""
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
    """Those that are started with the platform."""
    workers: tuple[ProcessPlan, ...]
    """Every rollout worker that there may be, started or not."""
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
        return ("gateway",), tuple(worker.name for worker in self.workers), ("reward",), ("learner",), ("redis",)

    def write(self) -> None:
        """Make the directories and write the settings."""
        (self.spec.run_dir / "redis").mkdir(parents=True, exist_ok=True)
        self.socket_dir.mkdir(mode=0o700)
        self.config_path.write_text(dump_toml(self.sections))


def plan(spec: PlatformSpec) -> PlatformPlan:
    """Choose ports and settings."""
    check_num_workers(spec.rollout_workers, spec.max_rollout_workers)
    check_model_dir(spec.policy_dir, "policy")
    check_model_dir(spec.reward_dir, "reward model")
    ports = free_ports()
    redis_port = next(ports)
    redis_url = spec.redis_url or f"redis://{LOOPBACK}:{redis_port}/0"
    learner, reward = _address(next(ports)), _address(next(ports))
    rollouts = [_address(next(ports)) for _ in range(spec.max_rollout_workers)]
    gateway, http = _address(spec.gateway_port or next(ports)), _address(spec.http_port or next(ports))
    environment = shared_environment(os.environ, spec, redis_url)
    sections = _sections(spec, learner=learner, rollouts=rollouts)
    # A run directory's path may be too long for a socket's.
    sockets = Path(tempfile.gettempdir()) / f"rlhf-{uuid4().hex[:8]}"
    workers = tuple(
        _room("rollout", f"rollout-{index}", address, sections, {**environment, **_worker(spec, index, sockets)})
        for index, address in enumerate(rollouts)
    )
    processes = [
        _room("learner", "learner", learner, sections, environment),
        *workers[: spec.rollout_workers],
        _room("reward", "reward", reward, sections, environment),
        _room("gateway", "gateway", gateway, sections, {**environment, "ONLINERLHF_GATEWAY__HTTP_LISTEN": http}),
    ]
    if spec.redis_url is None:
        processes.insert(0, _redis(spec, redis_port))
    return PlatformPlan(
        spec=spec,
        redis_url=redis_url,
        http=http,
        processes=tuple(processes),
        workers=workers,
        sections=sections,
        socket_dir=sockets,
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


def check_num_workers(wanted: int, most: int) -> None:
    """Refuses more rollout workers than the run keeps ports for, and fewer than none."""
    if not 0 <= wanted <= most:
        raise ConfigError(f"{wanted} rollout workers; expected 0 to {most} (up --max-rollout-workers)")


def check_model_dir(path: Path, what: str) -> None:
    """A transformers directory: a config and weights."""
    if not (path / "config.json").is_file():
        raise ConfigError(f"{what} directory {path} has no config.json; `onlinerlhf bootstrap` makes small models")
    if not any(path.glob("*.safetensors")):
        raise ConfigError(f"{what} directory {path} has no *.safetensors weights")


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


def _room(room: str, name: str, address: str, sections: Sections, environment: Mapping[str, str]) -> ProcessPlan:
    return ProcessPlan(
        name=name,
        address=address,
        command=(sys.executable, "-m", f"onlinerlhf.{room}"),
        environment={**environment, f"ONLINERLHF_{room.upper()}__LISTEN": address},
        drain_seconds=_drain_seconds(room, sections) + DRAIN_MARGIN_SECONDS,
    )


def _drain_seconds(room: str, sections: Sections) -> float:
    default = ServiceConfig.model_fields["drain_seconds"].default
    value = os.environ.get(f"ONLINERLHF_{room.upper()}__DRAIN_SECONDS", sections[room].get("drain_seconds", default))
    try:
        return float(str(value))
    except ValueError:
        # The room refuses it, with its name.
        return float(default)


def _redis(spec: PlatformSpec, port: int) -> ProcessPlan:
    return ProcessPlan(
        name="redis",
        address=_address(port),
        command=tuple(redis_server_command(spec.run_dir / "redis", port)),
        environment=dict(os.environ),
        drain_seconds=15.0,
    )
