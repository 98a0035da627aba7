"""Runs the five images as one platform on this machine, closed as Kubernetes will close them, and uses it.

    .venv/bin/python deploy/docker/smoke.py --engine podman --tag dev

Containers have a read-only root, no capability, no new privileges, and user 10001; they share the host's network and
listen on loopback. Models are tiny ones that the learner's image makes. Prints one line a finding, and exits with 1
when prompts are not answered, nothing is learned, the ledger does not balance, or a room does not end with 0.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from onlinerlhf.local.ports import free_ports
from onlinerlhf.local.sections import dump_toml
from onlinerlhf.local.submit import NOTICE_VERSION
from onlinerlhf.runtime.embedded_redis import redis_server_command
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger, LedgerCounts
from onlinerlhf.world.users import prompts, users
from onlinerlhf_client import Client, Consent

RUN_ID: Final = "smoke"
PYTHON: Final = "/opt/venv/bin/python"
CLOSED: Final = ("--network=host", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
START_SECONDS: Final = 480.0
LEARN_SECONDS: Final = 300.0
STOP_SECONDS: Final = 60
NUM_PROMPTS: Final = 48
BATCH_SIZE: Final = 16
DRAIN_ORDER: Final = ("gateway", "rollout", "reward", "learner")
WRITTEN: Final = """
import os
own = "/var/lib/onlinerlhf"
roots = ("/tmp", "/dev/shm", "/var/tmp", "/var/cache/onlinerlhf", f"{own}/learner", f"{own}/staging")
paths = [os.path.join(root, name) for root in roots if os.path.isdir(root) for name in os.listdir(root)]
print(" ".join(sorted(paths)) or "nothing")
"""


class SmokeError(Exception):
    """What did not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What all containers are started with."""

    engine: str
    flags: tuple[str, ...]
    """What this machine's engine needs besides."""
    tag: str
    config: Path
    redis_url: str
    ports: Mapping[str, int]

    def call(self, *arguments: str, check: bool = True, timeout: float = 120.0) -> str:
        """One command of the engine; its standard output."""
        try:
            done = subprocess.run([self.engine, *arguments], capture_output=True, text=True, timeout=timeout)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise SmokeError(f"waited {timeout:g} s for {self.engine} {arguments[0]}") from None
        if check and done.returncode:
            raise SmokeError(f"{self.engine} {' '.join(arguments[:3])} … ended with {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def name(self, room: str) -> str:
        """The container's."""
        return f"onlinerlhf-smoke-{room}"

    def run(self, room: str, *arguments: str, command: Sequence[str] = (), timeout: float = 120.0) -> str:
        """A container of a room's image; `command` after an entry point of one's own."""
        variables = {
            "ONLINERLHF_CONFIG": "/etc/onlinerlhf/config.toml",
            "ONLINERLHF_RUN__ID": RUN_ID,
            "ONLINERLHF_RUN__REDIS_URL": self.redis_url,
            "ONLINERLHF_PROBE_ADDRESS": f"127.0.0.1:{self.ports[room]}",
            f"ONLINERLHF_{room.upper()}__LISTEN": f"127.0.0.1:{self.ports[room]}",
            "OMP_NUM_THREADS": "1",
        }
        return self.call(
            *("run", *CLOSED, *self.flags, "--tmpfs=/tmp:rw,size=512m,mode=1777"),
            *(f"--env={key}={value}" for key, value in variables.items()),
            *("--volume", f"{self.config}:/etc/onlinerlhf/config.toml:ro"),
            *arguments,
            f"localhost/onlinerlhf-{room}:{self.tag}",
            *command,
            timeout=timeout,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run the five images as one platform and use it.")
    parser.add_argument("--engine", default="podman", help="podman, docker, or a program that takes their arguments")
    parser.add_argument("--flag", dest="flags", action="append", default=[], help="one more for `run`; may be repeated")
    parser.add_argument("--tag", default="dev")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            smoke(options.engine, tuple(options.flags), options.tag, Path(scratch))
        except SmokeError as error:
            print(f"failed: {error}", file=sys.stderr)
            sys.exit(1)


def smoke(engine: str, flags: tuple[str, ...], tag: str, scratch: Path) -> None:
    """The story."""
    ports = dict(zip(("redis", *DRAIN_ORDER), free_ports(), strict=False))
    stand = Stand(
        engine=engine,
        flags=flags,
        tag=tag,
        config=scratch / "config.toml",
        redis_url=f"redis://127.0.0.1:{ports['redis']}/0",
        ports=ports,
    )
    stand.config.write_text(dump_toml(_sections(ports)))
    scratch.chmod(0o755)
    with _redis(scratch, ports["redis"]), _volumes(stand), _ended(stand):
        # 1. Models, made by the learner's image into a volume.
        _make_models(stand)
        # 2. The rooms, each until its own probe says that it serves.
        _start(stand)
        # 3. A key, made in the gateway's image, which has Redis and no gateway to ask.
        key = _key(stand)
        # 4. Users ask and let the platform learn.
        versions = _answer(stand, key)
        print(f"answers {NUM_PROMPTS} by versions {sorted(versions)}")
        # 5. The learner learns from them.
        print(f"ppo_steps {_learned(stand)}")
        for room in DRAIN_ORDER:
            print(f"written {room} {stand.call('exec', stand.name(room), PYTHON, '-c', WRITTEN)}")
        # 6. SIGTERM, in the order in which work flows, and what is left is accounted for.
        _stop(stand)
        _check(asyncio.run(_counts(stand.redis_url)))


def _sections(ports: Mapping[str, int]) -> dict[str, dict[str, object]]:
    return {
        "gateway": {
            "model_dir": "/models/sft",
            "rollout_target": f"127.0.0.1:{ports['rollout']}",
            "http_listen": "none",
            "default_max_tokens": 12,
            "valid_share": 0.0,
            "test_share": 0.0,
        },
        "rollout": {
            "model_dir": "/models/sft",
            "staging_dir": "/var/lib/onlinerlhf/staging",
            "learner_target": f"127.0.0.1:{ports['learner']}",
            "max_tokens": 12,
            "max_samples_ahead": 2 * BATCH_SIZE,
            "kv_cache_bytes": 64 * 1024**2,
        },
        "reward": {"model_dir": "/models/reward"},
        "learner": {
            "policy_dir": "/models/sft",
            "reward_dir": "/models/reward",
            "output_dir": "/var/lib/onlinerlhf/learner",
            "batch_size": BATCH_SIZE,
            "num_minibatches": 2,
        },
    }


@contextmanager
def _redis(scratch: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(redis_server_command(scratch, port), stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=15)


@contextmanager
def _volumes(stand: Stand) -> Iterator[None]:
    names = [stand.name(each) for each in ("models", "checkpoints")]
    for name in names:
        stand.call("volume", "create", name)
    try:
        yield
    finally:
        for name in names:
            stand.call("volume", "rm", "--force", name, check=False)


@contextmanager
def _ended(stand: Stand) -> Iterator[None]:
    """No container is left behind; those of a failure say their last words."""
    try:
        yield
    except BaseException:
        for room in DRAIN_ORDER:
            print(f"--- {room}", file=sys.stderr, flush=True)
            subprocess.run([stand.engine, "logs", "--tail=30", stand.name(room)], stdout=sys.stderr, timeout=60)  # noqa: S603
        raise
    finally:
        for room in DRAIN_ORDER:
            stand.call("rm", "--force", "--time=5", stand.name(room), check=False)


def _make_models(stand: Stand) -> None:
    began = time.monotonic()
    stand.run(
        *("learner", "--rm", "--volume", f"{stand.name('models')}:/models", "--entrypoint=/opt/venv/bin/onlinerlhf"),
        command=("bootstrap", "--out", "/models", "--scale", "tiny"),
        timeout=START_SECONDS,
    )
    print(f"bootstrap_seconds {time.monotonic() - began:.1f}")


def _start(stand: Stand) -> None:
    models = ("--volume", f"{stand.name('models')}:/models:ro")
    own = {
        "learner": ("--volume", f"{stand.name('checkpoints')}:/var/lib/onlinerlhf/learner"),
        # vLLM's processes share 160 MiB of messages; an engine gives 64 MiB by default.
        "rollout": ("--tmpfs=/var/lib/onlinerlhf/staging:rw,mode=1777", "--shm-size=512m"),
    }
    for room in reversed(DRAIN_ORDER):
        began = time.monotonic()
        stand.run(room, "--detach", "--name", stand.name(room), *models, *own.get(room, ()))
        _wait_for(f"{room} to serve", START_SECONDS, partial(_serves, stand, room))
        print(f"start_seconds {room} {time.monotonic() - began:.1f}")


def _serves(stand: Stand, room: str) -> bool:
    if stand.call("inspect", "--format={{.State.Running}}", stand.name(room)) != "true":
        raise SmokeError(f"{room} ended")
    probe = subprocess.run(  # noqa: S603
        [stand.engine, "exec", stand.name(room), PYTHON, "/opt/probe.py"], capture_output=True, timeout=60
    )
    return probe.returncode == 0


def _key(stand: Stand) -> str:
    made = stand.run(
        *("gateway", "--rm", "--entrypoint=/opt/venv/bin/onlinerlhf"),
        command=("keys", "create", "--name=smoke", "--class=playground", "--organisation=smoke", "--json"),
    )
    return str(json.loads(made)["key"])


def _answer(stand: Stand, key: str) -> set[int]:
    """Ask everything once, with consent; the versions that answered."""
    asked = prompts(users(0, count=12).train, NUM_PROMPTS, seed=0)
    consent = Consent.shown_now(NOTICE_VERSION)
    with Client(f"127.0.0.1:{stand.ports['gateway']}", api_key=key) as client:
        return {client.answer(each.text, user_id=each.user_id, consent=consent).policy_version for each in asked}


def _learned(stand: Stand) -> int:
    """Steps, once nothing is on its way that could make another."""

    def done() -> bool:
        counts = asyncio.run(_counts(stand.redis_url))
        return counts.trained + sum(counts.dropped.values()) > NUM_PROMPTS - BATCH_SIZE

    _wait_for("samples to be trained", LEARN_SECONDS, done)
    steps = "/var/lib/onlinerlhf/learner/steps.jsonl"
    return int(stand.call("exec", stand.name("learner"), PYTHON, "-c", f"print(len(open({steps!r}).readlines()))"))


async def _counts(url: str) -> LedgerCounts:
    redis = Redis.from_url(url)
    try:
        return await Ledger(redis, RunKeys(RUN_ID)).counts()
    finally:
        await redis.aclose()


def _stop(stand: Stand) -> None:
    for room in DRAIN_ORDER:
        began = time.monotonic()
        stand.call("stop", f"--time={STOP_SECONDS}", stand.name(room), timeout=STOP_SECONDS + 30)
        status = stand.call("inspect", "--format={{.State.ExitCode}}", stand.name(room))
        print(f"drain_seconds {room} {time.monotonic() - began:.1f}, exit {status}")
        if status != "0":
            raise SmokeError(f"{room} ended with {status} after SIGTERM")


def _check(counts: LedgerCounts) -> None:
    dropped = sum(counts.dropped.values())
    print(f"ledger admitted {counts.admitted} trained {counts.trained} dropped {dropped} off by {counts.imbalance}")
    if counts.imbalance or not counts.trained:
        raise SmokeError("the ledger does not balance, or nothing was learned")


def _wait_for(what: str, seconds: float, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SmokeError(f"waited {seconds:g} s for {what}")
        time.sleep(1)


if __name__ == "__main__":
    main()
