"""100,000 prompts through the screens and the pool, with copies planted among them: caught, wrongly dropped, memory.

Of an original and its copy one may stay: a copy is turned away as a duplicate, and a chat that goes on from where an
earlier prompt ended takes its place. Whatever else is turned away as a duplicate is wrongly dropped.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, cast

from claims import Claim
from gateway_copies import NUM_USERS, TEMPLATES, Item, Stream
from gateway_servers import Store, store
from redis.asyncio import Redis

from onlinerlhf.gateway.access.callers import ApiKey, Caller, KeyClass, Scope
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.admission.consent import ConsentClaim, Notices
from onlinerlhf.gateway.admission.intake import Intake
from onlinerlhf.gateway.admission.offers import Offer, Verdict
from onlinerlhf.gateway.admission.pool import Limits, Pool, dedup_of
from onlinerlhf.gateway.admission.screens import Rules
from onlinerlhf.gateway.admission.splits import Splits
from onlinerlhf.gateway.admission.templates import Templates
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.gateway.pii.scanner import build_scanner
from onlinerlhf.gateway.requests.opening import encode_turns
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.batches import Batcher
from onlinerlhf.runtime.health import Health

NUM_PROMPTS: Final = 100_000
NUM_AT_ONCE: Final = 128
GIVE_UP_SECONDS: Final = 30.0
_KEY: Final = b"a key of the benchmark"
_EXPECTED: Final = (Verdict.ADMITTED, Verdict.HELD_OUT, Verdict.DUPLICATE)


async def measure(directory: Path, says: Reporter) -> list[Claim]:
    """Claims about dedup."""
    tokenizer = PromptTokenizer.load(directory / "models" / "sft")
    async with store(directory / "dedup_redis") as running:
        batcher = Batcher(running.client)
        try:
            return await _measure(running, cast(Redis, batcher), tokenizer, says)
        finally:
            await batcher.aclose()


async def _measure(running: Store, batched: Redis, tokenizer: PromptTokenizer, says: Reporter) -> list[Claim]:
    intake, key = _intake(running, batched, tokenizer), _api_key()
    people = _people(key)
    bar = says.start("prompts for dedup", NUM_PROMPTS)
    bytes_before = await running.used_bytes()
    verdicts: dict[str, Verdict] = {}
    items: list[Item] = []
    started = time.perf_counter()
    for wave in Stream(seed=1, num_prompts=NUM_PROMPTS).waves():
        waiting = iter(wave)

        async def work(waiting: Iterator[Item] = waiting) -> None:
            for item in waiting:
                offer = _offer(item, people[item.owner], tokenizer)
                verdicts[item.sample_id] = await intake.admit(offer, give_up_seconds=GIVE_UP_SECONDS)

        async with asyncio.TaskGroup() as group:
            for number in range(NUM_AT_ONCE):
                group.create_task(work(), name=f"offering {number}")
        items += wave
        bar.advance(steps=len(wave))
    says.say(f"{NUM_PROMPTS / (time.perf_counter() - started):.0f} prompts/s through screens and pool")
    all_bytes = await running.used_bytes() - bytes_before
    return await _claims(running, items, verdicts, people, all_bytes, says)


async def _claims(
    running: Store,
    items: list[Item],
    verdicts: dict[str, Verdict],
    people: list[Caller],
    all_bytes: int,
    says: Reporter,
) -> list[Claim]:
    unexpected = Counter(verdicts.values()) - Counter(dict.fromkeys(_EXPECTED, NUM_PROMPTS))
    if unexpected:
        raise RuntimeError(f"a screen that is not dedup turned prompts away: {dict(unexpected)}")
    planted, caught, false_drops, num_kept = Counter[str](), Counter[str](), Counter[str](), 0
    for item in items:
        is_kept = await redis.command(running.client, "EXISTS", running.keys.prompt(item.sample_id))
        num_kept += is_kept
        if item.original:
            planted[item.kind] += 1
            is_original_kept = await redis.command(running.client, "EXISTS", running.keys.prompt(item.original))
            caught[item.kind] += verdicts[item.sample_id] is Verdict.DUPLICATE or not is_original_kept
        else:
            false_drops[item.kind] += verdicts[item.sample_id] is Verdict.DUPLICATE
    num_first = Counter(item.kind for item in items if not item.original)
    says.say("caught: " + ", ".join(f"{kind} {caught[kind]}/{planted[kind]}" for kind in planted))
    says.say("wrongly dropped: " + ", ".join(f"{kind} {false_drops[kind]}/{num_first[kind]}" for kind in num_first))
    share, num_false = caught.total() / planted.total(), false_drops.total()
    dedup_bytes = await _memory(running, [running.keys.dedup, *(dedup_of(running.keys, each.owner) for each in people)])
    return [
        Claim(name="dedup_duplicates_caught", value=share, unit="share", goal=">=1", ok=share >= 1),
        Claim(name="dedup_false_drops", value=num_false, unit="prompts", goal="<=0", ok=num_false == 0),
        Claim(name="dedup_redis_bytes_a_prompt", value=dedup_bytes / num_kept, unit="bytes", goal="reported", ok=True),
        Claim(name="pool_redis_bytes_a_prompt", value=all_bytes / num_kept, unit="bytes", goal="reported", ok=True),
    ]


async def _memory(running: Store, names: list[str]) -> int:
    """Bytes, every element counted."""
    sizes = [await redis.command(running.client, "MEMORY", "USAGE", name, "SAMPLES", 0) for name in names]
    return sum(size or 0 for size in sizes)


def _intake(running: Store, batched: Redis, tokenizer: PromptTokenizer) -> Intake:
    limits = Limits(
        prompts_per_user=200, pool_bound=2 * NUM_PROMPTS, prompts_bound=256, max_epochs=1, retention_seconds=86_400
    )
    rules = Rules(
        notices=Notices(versions=frozenset({"1"}), seconds=86_400.0),
        max_tokens=10_000,
        pii_policy=Policy.DROP,
        encode=partial(encode_turns, tokenizer),
        splits=Splits(salt="1", valid_share=0.05, test_share=0.05),
        templates=Templates.of(TEMPLATES),
    )
    return Intake(
        Pool(batched, running.keys, limits),
        build_scanner(None, timeout_seconds=2.0),
        rules,
        HashKey(running.client, running.keys, _KEY),
        redis.Patience(Health("benchmark")),
        on_admitted=asyncio.Event(),
        queue_bound=1,
        num_workers=1,
    )


def _api_key() -> ApiKey:
    return ApiKey(
        key_id="benchmark",
        name="benchmark",
        key_class=KeyClass.PLAYGROUND,
        organisation="",
        scopes=frozenset({Scope.GENERATE}),
        created_at_seconds=0.0,
    )


def _people(key: ApiKey) -> list[Caller]:
    digests = Digests(_KEY)
    owners = [digests.owner("", f"user-{number}") for number in range(NUM_USERS)]
    return [Caller(key=key, owner=owner, tenant=digests.tenant("", owner)) for owner in owners]


def _offer(item: Item, caller: Caller, tokenizer: PromptTokenizer) -> Offer:
    return Offer(
        caller=caller,
        sample_id=item.sample_id,
        turns=item.turns,
        token_ids=encode_turns(tokenizer, item.turns),
        claim=ConsentClaim(notice_version="1", shown_at_seconds=time.time() - 60.0),
    )
