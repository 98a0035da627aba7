"""The gateway beside servers that do nothing: what screening costs, what dedup catches, and what HTTP adds.

1. Prompts a second through one gateway process (`python -m onlinerlhf.gateway`, a real Redis with its append-only file,
   every check and every screen on) by SubmitPrompts, as the clients' submit_many sends many, over what a bare grpc.aio
   unary echo process sends back of the same bytes to the same client. Rounds take turns; the ratio is the median of the
   rounds' own. Beside it the same by SubmitPrompt, a call a prompt; both for short and for long prompts; and how long
   one prompt takes when nothing else is on its way: the client's time less the echo's.
2. 100,000 prompts through screens and pool: copies caught, first ones lost, memory.
3. A chat completion over HTTP from a real platform, over a bare FastAPI echo of the same body. What bounds the rate
   there is the model, so compared is the processor time of the two processes.
"""

import asyncio
import statistics
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import gateway_dedup
import gateway_http
from claims import Claim
from gateway_echo import ECHO_METHOD
from gateway_load import STREAM_METHOD, SUBMIT_METHOD, Load, Round, submission
from gateway_prompts import prompts, short_prompts
from gateway_servers import Store, echo, free_port, gateway, store

from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.learner.bootstrap.tiny import tiny_models
from onlinerlhf.learner.training.progress import Reporter, reporter
from onlinerlhf.runtime.redis import command

GOAL_RATIO = 0.35
NUM_ROUNDS = 5
ROUND_PROMPTS = 3_000
"""Each round's; the echo gets them twice, so that its rounds are not too short."""
NUM_AT_ONCE = 128
NUM_STREAMED_AT_ONCE = 256
"""Over four streams: the Python client's window of 64 on each."""
NUM_SINGLE = 400
"""One at a time, for latency."""
NUM_USERS = 500
NO_LIMIT = 100_000_000
ORGANISATION = "a company"
HASH_KEY = "a key of the benchmark"
"""Fixed, so that the organisation is on the side of training: nothing is cheaper because it is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """What the rounds gave, in order."""

    screened: list[Round]
    streamed: list[Round]
    echoed: list[Round]
    single: Round
    single_echo: Round
    bytes_a_prompt: float


def main() -> list[Claim]:
    """All parts, one after the other, each with a Redis of its own."""
    with reporter() as says, tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        tiny_models(directory / "models", tie_word_embeddings=True)
        return [
            *_claims(*asyncio.run(_screened(directory, says)), says),
            *asyncio.run(gateway_dedup.measure(directory, says)),
            *asyncio.run(gateway_http.measure(directory, says)),
        ]


async def _screened(directory: Path, says: Reporter) -> tuple[Screened, Screened]:
    async with store(directory / "redis") as redis, echo(directory, "grpc") as plain:
        limits = Limits(requests_per_minute=NO_LIMIT, tokens_per_minute=NO_LIMIT, max_concurrent=NO_LIMIT)
        scopes = frozenset({Scope.GENERATE})
        _, api_key = await KeyStore(redis.client, redis.keys).create(
            "benchmark", KeyClass.PLAYGROUND, ORGANISATION, scopes, limits
        )
        settings = {
            "model_dir": directory / "models" / "sft",
            "rollout_target": f"127.0.0.1:{free_port()}",
            "hash_key": HASH_KEY,
            "pool_bound": NO_LIMIT,
            **dict.fromkeys(("playground_limits", "user_limits", "organisation_limits"), asdict(limits)),
        }
        async with (
            gateway(directory, redis, settings) as screening,
            Load(screening, SUBMIT_METHOD, api_key=api_key) as ours,
            Load(plain, ECHO_METHOD, api_key=api_key) as theirs,
        ):
            short = await _rounds(redis, ours, theirs, short_prompts(seed=1), says)
            return short, await _rounds(redis, ours, theirs, prompts(seed=0), says)


async def _rounds(redis: Store, ours: Load, theirs: Load, texts: Iterator[str], says: Reporter) -> Screened:
    numbered = enumerate(texts)
    admitted_before = await _num_admitted(redis)
    tag = uuid.uuid4().hex[:8]

    def bodies(count: int) -> list[bytes]:
        return [
            submission(text, number=number, num_users=NUM_USERS, tag=tag) for number, text in islice(numbered, count)
        ]

    screened: list[Round] = []
    streamed: list[Round] = []
    echoed: list[Round] = []
    bar = says.start("screened prompts", (NUM_ROUNDS + 1) * ROUND_PROMPTS)
    bytes_before = await redis.used_bytes()
    for turn in range(NUM_ROUNDS + 1):
        sent = bodies(ROUND_PROMPTS)
        if turn % 2:
            echoed.append(await theirs.round(sent + sent, num_at_once=NUM_AT_ONCE))
        screened.append(await ours.round(sent, num_at_once=NUM_AT_ONCE))
        streamed.append(
            await ours.streamed(bodies(ROUND_PROMPTS), method=STREAM_METHOD, num_at_once=NUM_STREAMED_AT_ONCE)
        )
        if not turn % 2:
            echoed.append(await theirs.round(sent + sent, num_at_once=NUM_AT_ONCE))
        bar.advance(steps=ROUND_PROMPTS, detail=f"{screened[-1].rate:.0f}/s, echo {echoed[-1].rate:.0f}/s")
    bytes_a_prompt = (await redis.used_bytes() - bytes_before) / (2 * len(screened) * ROUND_PROMPTS)
    sent = bodies(NUM_SINGLE)
    single = await ours.round(sent, num_at_once=1)
    single_echo = await theirs.round(sent, num_at_once=1)
    if ours.num_retries:
        says.say(f"{ours.num_retries} calls were tried again: Redis was silent for half a second")
    await _check_admitted(redis, admitted_before + 2 * len(screened) * ROUND_PROMPTS + NUM_SINGLE)
    # The first turn warmed both up.
    return Screened(
        screened=screened[1:],
        streamed=streamed[1:],
        echoed=echoed[1:],
        single=single,
        single_echo=single_echo,
        bytes_a_prompt=bytes_a_prompt,
    )


async def _check_admitted(redis: Store, count: int) -> None:
    """Every prompt went all the way: one that a screen turns away costs less."""
    admitted = await _num_admitted(redis)
    if admitted != count:
        raise RuntimeError(f"{admitted} of {count} prompts were admitted")


async def _num_admitted(redis: Store) -> int:
    return int(await command(redis.client, "HGET", redis.keys.ledger_counts, "admitted") or 0)


def _claims(short: Screened, long: Screened, says: Reporter) -> list[Claim]:
    """The goal is for prompts of the usual length; long ones cost more to read, and cost an echo nothing."""
    streamed, unary = _ratios(short, "short prompts", says)
    streamed_long, unary_long = _ratios(long, "long prompts", says)
    overhead = statistics.median(short.single_echo.latencies)
    cuts = statistics.quantiles(short.single.latencies, n=100)
    says.say(
        "screen latency: one prompt at a time, from the client, less the echo's median of "
        f"{1e3 * overhead:.2f} ms; Redis syncs its file before each of its answers"
    )
    reported = [
        ("gateway_unary_over_echo", unary, "ratio"),
        ("gateway_screened_over_echo_long", streamed_long, "ratio"),
        ("gateway_unary_over_echo_long", unary_long, "ratio"),
        ("screen_latency_p50", 1e3 * (cuts[49] - overhead), "ms"),
        ("screen_latency_p99", 1e3 * (cuts[98] - overhead), "ms"),
        ("gateway_redis_bytes_a_prompt", long.bytes_a_prompt, "bytes"),
    ]
    goal = f">={GOAL_RATIO}"
    return [
        Claim(name="gateway_screened_over_echo", value=streamed, unit="ratio", goal=goal, ok=streamed >= GOAL_RATIO),
        *(Claim(name=name, value=value, unit=unit, goal="reported", ok=True) for name, value, unit in reported),
    ]


def _ratios(rounds: Screened, what: str, says: Reporter) -> tuple[float, float]:
    """By SubmitPrompts and by SubmitPrompt, over the echo."""
    for name, all_rounds in (
        ("gateway", rounds.screened),
        ("gateway, streamed", rounds.streamed),
        ("echo", rounds.echoed),
    ):
        rates = ", ".join(f"{each.rate:.0f}" for each in all_rounds)
        micros = statistics.median(each.cpu_micros for each in all_rounds)
        busy = statistics.median(each.server_cpu_seconds / each.seconds for each in all_rounds)
        client_busy = statistics.median(each.client_cpu_seconds / each.seconds for each in all_rounds)
        says.say(
            f"{what}, {name}: {rates} calls/s; {micros:.0f} us of processor a call; busy: server {busy:.2f} of a core, "
            f"client {client_busy:.2f}"
        )
    streamed, unary = (
        statistics.median(mine.rate / bare.rate for mine, bare in zip(ours, rounds.echoed, strict=True))
        for ours in (rounds.streamed, rounds.screened)
    )
    return streamed, unary


if __name__ == "__main__":
    for claim in main():
        print(claim)
