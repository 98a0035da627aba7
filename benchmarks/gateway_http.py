"""A chat completion over HTTP, from a real platform on tiny models, beside a FastAPI echo of the same body.

The model bounds how many there are a second, so what is compared is processor time: of the echo's process a request,
over the gateway's, which checks the key, tokenises, reserves and settles, and asks a rollout worker over gRPC.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import httpx
import psutil
from claims import Claim
from gateway_prompts import prompts
from gateway_servers import Server, echo

from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.local import credentials
from onlinerlhf.local.platform import PlatformSpec, plan
from onlinerlhf.local.running import RunningPlatform, running

NUM_REQUESTS: Final = 600
NUM_WARM: Final = 100
NUM_AT_ONCE: Final = 16
MAX_CHARACTERS: Final = 300
"""The tiny tokenizer makes a token of little more than a character, and the tiny model reads 512."""
REQUEST_SECONDS: Final = 60.0
_PATH: Final = "/v1/chat/completions"


async def measure(directory: Path, says: Reporter) -> list[Claim]:
    """The one claim about HTTP."""
    models = directory / "models"
    spec = PlatformSpec(
        run_dir=directory / "run",
        run_id="benchmark",
        policy_dir=models / "sft",
        reward_dir=models / "reward",
        overrides={"rollout": {"max_model_len": 512, "kv_cache_bytes": 64 * 2**20}},
    )
    async with running(plan(spec), report=says.say) as platform, echo(directory, "http") as plain:
        key = credentials.read(spec.run_dir).client_key
        served = await _cpu_micros("gateway", _gateway(platform), f"http://{platform.plan.http}", key, says)
        echoed = await _cpu_micros("FastAPI echo", plain, f"http://{plain.target}", key, says)
    return [Claim(name="http_over_fastapi_echo", value=echoed / served, unit="ratio", goal="reported", ok=True)]


def _gateway(platform: RunningPlatform) -> Server:
    entry = next(entry for entry in platform.endpoints().processes if entry.name == "gateway")
    if entry.pid is None:
        raise RuntimeError("the gateway does not run")
    return Server(process=psutil.Process(entry.pid), port=int(entry.address.rpartition(":")[2]))


async def _cpu_micros(name: str, server: Server, url: str, key: str, says: Reporter) -> float:
    """Of the server's process, a request."""
    bodies = [_body(text, number) for number, text in enumerate(islice(prompts(seed=2), NUM_WARM + NUM_REQUESTS))]
    limits = httpx.Limits(max_connections=NUM_AT_ONCE, max_keepalive_connections=NUM_AT_ONCE)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=REQUEST_SECONDS, limits=limits) as client:
        await _send(client, bodies[:NUM_WARM])
        before, started = server.cpu_seconds(), time.perf_counter()
        await _send(client, bodies[NUM_WARM:])
        seconds, cpu_seconds = time.perf_counter() - started, server.cpu_seconds() - before
    micros = 1e6 * cpu_seconds / NUM_REQUESTS
    says.say(f"{name}: {NUM_REQUESTS / seconds:.0f} requests/s; {micros:.0f} us of processor a request")
    return micros


async def _send(client: httpx.AsyncClient, bodies: list[bytes]) -> None:
    waiting = iter(bodies)

    async def work(waiting: Iterator[bytes] = waiting) -> None:
        for body in waiting:
            (await client.post(_PATH, content=body)).raise_for_status()

    async with asyncio.TaskGroup() as group:
        for number in range(NUM_AT_ONCE):
            group.create_task(work(), name=f"HTTP load {number}")


def _body(text: str, number: int) -> bytes:
    """What any OpenAI client sends: no consent, so it is answered and no more."""
    message = {"role": "user", "content": text[:MAX_CHARACTERS]}
    return json.dumps({"model": "policy", "messages": [message], "max_tokens": 1, "user": f"user-{number}"}).encode()
