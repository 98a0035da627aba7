"""Rollout tokens per second through the worker, over raw `vllm.LLM.generate` on the same prompts.

Through the worker: [prompts] in a real Redis with its append-only file on -> lease -> decode -> engine -> evidence ->
one atomic hand-over each to [rollouts]. Raw: one call with all prompts, the same sampling parameters, the same engine
settings. Both engines live in the same process, are warm, and take turns, the first turn too; the ratio is the median
of the turns' own, so that a machine that slows down slows both.
"""

import asyncio
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from claims import Claim
from pydantic import SecretStr
from rollout_engine import make_model, make_prompts, settings

from onlinerlhf.core.samples import ConsentProof, Prompt, Stage
from onlinerlhf.rollout import environment
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.worker import RolloutWorker
from onlinerlhf.runtime import redis, wire
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.embedded_redis import redis_server_command
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LUA_TRANSITION
from onlinerlhf.runtime.streams import Consumer, Streams

NUM_PROMPTS = 768
NUM_ROUNDS = 5
GOAL_RATIO = 0.85

_OWNER = "0" * 32
_CONSENT = ConsentProof(key_class="playground", notice_version="1", shown_at_seconds=1.0)
_ADMIT = redis.Script(
    LUA_TRANSITION
    + """
ledger_admit(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[4])
redis.call('XADD', KEYS[4], '*', 'id', ARGV[1], 'data', ARGV[3])
return 1
"""
)


def main() -> list[Claim]:
    """Alternating rounds after a warm-up of both."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        config = settings(make_model(directory), directory)
        environment.prepare(config)
        raw = _raw_engine(config)
        platform, bare = asyncio.run(_measure(config, directory, raw))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(platform, bare, strict=True))
    print(f"tokens/s through the worker {_rounded(platform)}, raw {_rounded(bare)}", file=sys.stderr)
    return [
        Claim(name="rollout_throughput_ratio", value=ratio, unit="ratio", goal=">=0.85", ok=ratio >= GOAL_RATIO),
    ]


async def _measure(config: RolloutConfig, directory: Path, raw: Any) -> tuple[list[float], list[float]]:
    from onlinerlhf.rollout.engine import Engine
    from onlinerlhf.rollout.usage import Usage

    engine = Engine(config, usage=Usage())
    prompts = make_prompts(NUM_PROMPTS)
    platform: list[float] = []
    bare: list[float] = []
    try:
        await engine.start()
        await engine.apply(config.model_dir / "model.safetensors", 1)
        async with _redis(directory) as run:
            for turn in range(NUM_ROUNDS + 1):
                if turn % 2:
                    bare.append(await asyncio.to_thread(_raw_round, raw, prompts, config))
                platform.append(await _platform_round(run, config, engine, prompts, turn))
                if not turn % 2:
                    bare.append(await asyncio.to_thread(_raw_round, raw, prompts, config))
    finally:
        await engine.close()
    # The first turn warmed both up.
    return platform[1:], bare[1:]


def _raw_engine(config: RolloutConfig) -> Any:
    from vllm import LLM

    return LLM(
        model=str(config.model_dir),
        dtype=config.dtype,
        # As many at once as the worker samples: more would be faster, for both.
        max_num_seqs=config.max_concurrent_samples,
        kv_cache_memory_bytes=config.kv_cache_bytes,
        enforce_eager=config.enforce_eager,
        enable_prefix_caching=config.prefix_caching,
        logprobs_mode="processed_logprobs",
    )


def _raw_round(llm: Any, prompts: list[tuple[int, ...]], config: RolloutConfig) -> float:
    """Tokens per second."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=1.0, max_tokens=config.max_tokens, logprobs=0, flat_logprobs=True, detokenize=False
    )
    started = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": list(prompt)} for prompt in prompts], params, use_tqdm=False)
    seconds = time.perf_counter() - started
    return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds


async def _platform_round(
    run: RunConfig, config: RolloutConfig, engine: Any, prompts: list[tuple[int, ...]], turn: int
) -> float:
    """Tokens per second, from the first read to the last hand-over."""
    client, keys = redis.connect(run), RunKeys(f"{run.id}-{turn}")
    streams = Streams(client, keys)
    await streams.ensure_groups()
    for number, token_ids in enumerate(prompts):
        prompt = Prompt(
            sample_id=f"{number}.0", prompt_id=str(number), owner=_OWNER, tenant=_OWNER, consent=_CONSENT, text="",
            token_ids=token_ids, epoch=0, admitted_at_seconds=0.0,
        )  # fmt: skip
        await _ADMIT.run(
            client,
            [keys.ledger_states, keys.ledger_counts, keys.ledger_owners, keys.stream(Stage.PROMPTS)],
            [prompt.sample_id, Stage.PROMPTS, wire.dump_prompt(prompt), f"{_OWNER}|1"],
        )
    patience = redis.Patience(Health("benchmark"))
    consumer = Consumer(client, keys, Stage.PROMPTS, name=config.worker_id, patience=patience)
    worker = RolloutWorker(consumer, streams, engine, config, refusal=_never)
    stop = asyncio.Event()
    tokens_before = engine.usage.num_tokens
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop), name="worker")
        await _until_sampled(streams, len(prompts))
        seconds = time.perf_counter() - started
        stop.set()
    await client.aclose()
    return float(engine.usage.num_tokens - tokens_before) / seconds


def _rounded(values: list[float]) -> list[int]:
    return [round(value) for value in values]


def _never(version: int) -> str:
    del version
    return ""


async def _until_sampled(streams: Streams, count: int) -> None:
    for _ in range(10_000):
        if await streams.backlog(Stage.ROLLOUTS) >= count:
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{count} samples were not done in 200 s")


@asynccontextmanager
async def _redis(directory: Path) -> AsyncIterator[RunConfig]:
    """A real server, as `onlinerlhf up` starts it."""
    (directory / "redis").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        *redis_server_command(directory / "redis", port), stdout=asyncio.subprocess.DEVNULL
    )
    run = RunConfig(id="benchmark", redis_url=SecretStr(f"redis://127.0.0.1:{port}/0"))
    client = redis.connect(run)
    try:
        await redis.Patience(Health("benchmark"))("the server", client.ping, give_up_seconds=20.0)
        yield run
    finally:
        await client.aclose()
        server.terminate()
        await server.wait()


if __name__ == "__main__":
    for claim in main():
        print(claim)
