"""What a snapshot is made of, read from the run's Redis. Reads only; nothing is drawn, made or moved."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from onlinerlhf.core.errors import MalformedRecord
from onlinerlhf.core.samples import Prompt
from onlinerlhf.gateway.rights import owned
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.batches import Batcher
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command

PAGE: Final = 256
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrompt:
    """An admitted or held-out prompt."""

    prompt: Prompt
    consent_second: float
    """When the notice was shown, and not after the admission: no client's clock outlives a withdrawal."""
    cap_rank: float
    """The keyed hash that the owner's cap goes by: the lowest stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer that a client got."""

    sample_id: str
    prompt_id: str
    """The claim: equal for all answers to one request."""
    owner: str
    turns: tuple[tuple[str, str], ...]
    """(role, text) of the prompt."""
    response: str
    pii_kinds: tuple[str, ...]
    """What was found in it or its prompt, and, by its policy, replaced or tagged."""
    version: int
    created_at_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJudgement:
    """What somebody thought of answers."""

    feedback_id: str
    kind: str
    """thumb, score, correction or ranking."""
    value: float | None
    """Of a thumb 0 or 1, of a score 0 to 1."""
    sample_ids: tuple[str, ...]
    versions: tuple[int, ...]
    """Policy version of each answer; 0 where it never ended."""
    text: str
    owner: str
    key_class: str
    created_at_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Everything at one time, in an order of its own: by age, then by id."""

    prompts: Sequence[StoredPrompt]
    answers: Sequence[StoredAnswer]
    judgements: Sequence[StoredJudgement]
    held_out: Mapping[str, str]
    """Prompt id -> valid or test; all others are train."""
    split_lineage: str
    """Keyed digest of the split's salt and shares; empty where no gateway has run yet."""
    blocked: Mapping[str, str]
    """Owner -> `erased` or `withdrawn:<second>`; read last, so that whoever went while we read is not missed."""
    unreadable: Mapping[str, int]
    """Kind -> records that are gone or broken though an index names them."""


Advance = Callable[[int], None]
"""Called with the number of records read since the last call."""


async def read_material(redis: Redis, keys: RunKeys, advance: Advance = lambda _num: None) -> Material:
    """Raises RedisError or OSError."""
    async with batched(redis) as client:
        unreadable: Counter[str] = Counter()
        prompts = await _prompts(client, keys, unreadable, advance)
        answers = await _hashes(
            client, owned.answers_by_age(keys), lambda i: owned.answer(keys, i), _answer, "answers", unreadable, advance
        )
        judgements = await _hashes(
            client,
            owned.feedback_by_age(keys),
            lambda i: owned.feedback(keys, i),
            _judgement,
            "feedback",
            unreadable,
            advance,
        )
        held_out = await command(client, "HGETALL", keys.key("held_out"))
        lineage = await command(client, "GET", keys.key("gateway", "split_lineage"))
        blocked = await command(client, "HGETALL", keys.blocked)
    return Material(
        prompts=sorted(prompts, key=lambda each: (each.prompt.admitted_at_seconds, each.prompt.prompt_id)),
        answers=sorted(answers, key=lambda each: (each.created_at_seconds, each.sample_id)),
        judgements=sorted(judgements, key=lambda each: (each.created_at_seconds, each.feedback_id)),
        held_out=_words(held_out),
        split_lineage=(lineage or b"").decode(),
        blocked=_words(blocked),
        unreadable=dict(unreadable),
    )


async def num_records(redis: Redis, keys: RunKeys) -> int:
    """How many the indices name."""
    names = (keys.prompts_by_age, owned.answers_by_age(keys), owned.feedback_by_age(keys))
    return sum([int(await command(redis, "ZCARD", name)) for name in names])


async def stored_prompts(client: Redis, keys: RunKeys) -> AsyncIterator[Prompt | None]:
    """Every prompt that the index names; None for one whose record is gone or broken."""
    for page in await _pages(client, keys.prompts_by_age):
        for record in await command(client, "MGET", *(keys.prompt(prompt_id) for prompt_id in page)):
            try:
                yield wire.load_prompt(record or b"")
            except MalformedRecord:
                yield None


async def _prompts(client: Redis, keys: RunKeys, unreadable: Counter[str], advance: Advance) -> list[StoredPrompt]:
    found: list[Prompt] = []
    async for prompt in stored_prompts(client, keys):
        advance(1)
        if prompt is None:
            unreadable["prompts"] += 1
        else:
            found.append(prompt)
    ranks = await _cap_ranks(client, keys, sorted({prompt.owner for prompt in found}))
    ages = await _scores(client, keys.prompts_by_age)
    return [
        StoredPrompt(
            prompt=prompt,
            consent_second=min(prompt.consent.shown_at_seconds, ages.get(prompt.prompt_id, 0.0)),
            cap_rank=ranks.get(prompt.prompt_id, math.inf),
        )
        for prompt in found
    ]


async def _cap_ranks(client: Redis, keys: RunKeys, owners: Sequence[str]) -> dict[str, float]:
    ranks: dict[str, float] = {}
    for start in range(0, len(owners), PAGE):
        page = owners[start : start + PAGE]
        for reply in await asyncio.gather(*(_scores(client, keys.prompts_of(owner)) for owner in page)):
            ranks.update(reply)
    return ranks


async def _scores(client: Redis, index: str) -> dict[str, float]:
    reply = await command(client, "ZRANGE", index, 0, -1, "WITHSCORES")
    return {member.decode(): float(score) for member, score in scored(reply)}


async def _hashes(
    client: Redis,
    index: str,
    record: Callable[[str], str],
    parse: Callable[[str, Mapping[str, str]], T],
    table: str,
    unreadable: Counter[str],
    advance: Advance,
) -> list[T]:
    found: list[T] = []
    for page in await _pages(client, index):
        replies = await asyncio.gather(*(command(client, "HGETALL", record(member)) for member in page))
        for member, fields in zip(page, replies, strict=True):
            try:
                found.append(parse(member, _words(fields)))
            except (KeyError, ValueError):
                unreadable[table] += 1
        advance(len(page))
    return found


async def _pages(client: Redis, index: str) -> list[list[str]]:
    members = [member.decode() for member in await command(client, "ZRANGE", index, 0, -1)]
    return [members[start : start + PAGE] for start in range(0, len(members), PAGE)]


def _words(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def scored(reply: Any) -> list[tuple[bytes, Any]]:
    """(member, score) of a WITHSCORES reply: parsed by the client, or flat as Redis sends it."""
    if reply and isinstance(reply[0], tuple | list):
        return [(member, score) for member, score in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))


def _answer(sample_id: str, fields: Mapping[str, str]) -> StoredAnswer:
    return StoredAnswer(
        sample_id=sample_id,
        prompt_id=fields["claim"],
        owner=fields["owner"],
        turns=tuple((turn["role"], turn["content"]) for turn in json.loads(fields["prompt"])),
        response=fields["response"],
        pii_kinds=tuple(fields["pii_kinds"].split()),
        version=int(fields["version"]),
        created_at_seconds=int(fields["created"]),
    )


def _judgement(feedback_id: str, fields: Mapping[str, str]) -> StoredJudgement:
    value = json.loads(fields["value"])
    return StoredJudgement(
        feedback_id=feedback_id,
        kind=fields["kind"],
        value=None if value is None else float(value),
        sample_ids=tuple(fields["samples"].split()),
        versions=tuple(int(version) for version in fields["versions"].split()),
        text=fields["text"],
        owner=fields["owner"],
        key_class=fields["key_class"],
        created_at_seconds=int(fields["created"]),
    )


@asynccontextmanager
async def batched(redis: Redis) -> AsyncIterator[Redis]:
    """Many small reads in few trips."""
    batcher = Batcher(redis)
    try:
        yield batcher  # type: ignore[misc]  # it takes a client's place where single commands are sent
    finally:
        await batcher.aclose()
