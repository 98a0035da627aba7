"""Everything held of a user, piece by piece, as (kind, JSON): what an operator answers a data subject with.

withdrawal     whether the user was erased or withdrew consent, and when; always one, and always first
prompt         text and tags of each prompt kept, held-out ones included
answer         each answer kept, with its prompt
feedback       judgements on the user's answers
receipt        samples given out on the user's behalf
sample_state   where each sample is, or what became of it

Digests, API keys and texts of others are not in it.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from redis.asyncio import Redis

from onlinerlhf.core.errors import MalformedRecord
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.requests.receipts import parse_receipt
from onlinerlhf.gateway.requests.samples import parse_state
from onlinerlhf.gateway.rights import owned
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience, command

GIVE_UP_SECONDS: Final = 10.0
_PAGE: Final = 1000
Piece = tuple[str, str]


class UserExport:
    """Of one run. Reads only."""

    def __init__(self, redis: Redis, keys: RunKeys, hash_key: HashKey, patience: Patience) -> None:
        self._redis = redis
        self._keys = keys
        self._hash_key = hash_key
        self._patience = patience

    async def export(self, organisation: str, user_id: str) -> AsyncIterator[Piece]:
        """All pieces. Raises Unavailable where Redis stays away."""
        digests = await self._patiently("the run's hash key", self._hash_key.digests)
        owner = digests.owner(organisation, user_id)
        yield await self._withdrawal(owner)
        for each in (self._prompts, self._answers, self._feedback, self._receipts, self._states):
            async for piece in each(owner):
                yield piece

    async def _withdrawal(self, owner: str) -> Piece:
        word = (await self._command("HGET", self._keys.blocked, owner) or b"none").decode()
        state, _, second = word.partition(":")
        return _piece("withdrawal", state=state, seconds=int(second) if second else None)

    async def _prompts(self, owner: str) -> AsyncIterator[Piece]:
        for prompt_id in await self._members(self._keys.prompts_of(owner)):
            record = await self._command("GET", self._keys.prompt(prompt_id))
            if record is None:
                continue
            try:
                prompt = wire.load_prompt(record)
            except MalformedRecord:
                yield _piece("prompt", prompt_id=prompt_id, problem="the record cannot be read")
                continue
            split = await self._command("HGET", self._keys.key("held_out"), prompt_id)
            yield _piece(
                "prompt",
                prompt_id=prompt_id,
                text=prompt.text,
                split=(split or b"train").decode(),
                use_case=prompt.use_case.value,
                use_case_source=prompt.use_case_source,
                notice_version=prompt.consent.notice_version,
                notice_shown_at_seconds=prompt.consent.shown_at_seconds,
                admitted_at_seconds=prompt.admitted_at_seconds,
            )

    async def _answers(self, owner: str) -> AsyncIterator[Piece]:
        async for sample_id, fields in self._hashes(
            owned.answers_of(self._keys, owner), lambda member: owned.answer(self._keys, member)
        ):
            yield _piece(
                "answer",
                sample_id=sample_id,
                prompt=json.loads(fields["prompt"]),
                response=fields["response"],
                pii_kinds=fields["pii_kinds"].split(),
                policy_version=int(fields["version"]),
                created_at_seconds=int(fields["created"]),
            )

    async def _feedback(self, owner: str) -> AsyncIterator[Piece]:
        async for feedback_id, fields in self._hashes(
            owned.feedback_of(self._keys, owner), lambda member: owned.feedback(self._keys, member)
        ):
            yield _piece(
                "feedback",
                feedback_id=feedback_id,
                judgement=fields["kind"],
                value=json.loads(fields["value"]),
                sample_ids=fields["samples"].split(),
                text=fields["text"],
                created_at_seconds=int(fields["created"]),
            )

    async def _receipts(self, owner: str) -> AsyncIterator[Piece]:
        for sample_id in await self._members(self._keys.receipts_of(owner)):
            fields = await self._command("HGETALL", self._keys.receipt(sample_id))
            if not fields:
                continue
            receipt = parse_receipt(sample_id, fields)
            yield _piece(
                "receipt",
                sample_id=sample_id,
                received=receipt.kind.value,
                policy_versions=sorted({span.version for span in receipt.version_spans}),
                num_tokens=receipt.num_tokens,
                created_at_seconds=receipt.created_at_seconds,
            )

    async def _states(self, owner: str) -> AsyncIterator[Piece]:
        """Of all samples, further epochs included: only a look at the whole ledger finds them."""
        cursor, prefix = 0, f"{owner}|".encode()
        while True:
            cursor, page = await self._command("HSCAN", self._keys.ledger_owners, cursor, "COUNT", _PAGE)
            sample_ids = sorted(sample_id for sample_id, proof in page.items() if proof.startswith(prefix))
            if sample_ids:
                states = await self._command("HMGET", self._keys.ledger_states, *sample_ids)
                for sample_id, state in zip(sample_ids, states, strict=True):
                    if state is not None:
                        yield _state(sample_id.decode(), state.decode())
            if int(cursor) == 0:
                return

    async def _hashes(self, index: str, record: Callable[[str], str]) -> AsyncIterator[tuple[str, dict[str, str]]]:
        for member in await self._members(index):
            fields = await self._command("HGETALL", record(member))
            if fields:
                yield member, {name.decode(): value.decode() for name, value in fields.items()}

    async def _members(self, index: str) -> list[str]:
        return [member.decode() for member in await self._command("ZRANGE", index, 0, -1)]

    async def _command(self, *arguments: str | bytes | int) -> Any:
        return await self._patiently("exporting a user", lambda: command(self._redis, *arguments))

    async def _patiently(self, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        return await self._patience(what, call, give_up_seconds=GIVE_UP_SECONDS)


def _state(sample_id: str, word: str) -> Piece:
    state = parse_state(word)
    return _piece(
        "sample_state",
        sample_id=sample_id,
        state=state.state,
        drop_reason=state.drop_reason or None,
        trained_version=state.trained_version or None,
    )


def _piece(kind: str, **fields: object) -> Piece:
    return kind, json.dumps(fields, ensure_ascii=False)
