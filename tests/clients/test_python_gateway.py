"""The Python clients against a running gateway: what a newcomer does first."""

import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from clients.both import both
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf_client import Consent, ConsentMissing, LimitReached, NotFound, PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    from integration.gateway.conftest import StartGateway

SCOPES = frozenset({Scope.GENERATE, Scope.FEEDBACK})


@both
async def test_prompts_answers_judgements_and_second_thoughts(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys, call: Any
) -> None:
    gateway = await start_gateway(notice_versions=("1",))
    _, key = await KeyStore(client, keys).create("test", KeyClass.PLAYGROUND, "acme", SCOPES)
    to = (gateway.target, key)
    consent = Consent.shown_now("1")
    receipt = await call(*to, "submit", "name three foods.", user_id="ada", consent=consent, idempotency_key="k")
    again = await call(*to, "submit", "name three foods.", user_id="ada", consent=consent, idempotency_key="k")
    assert (again.sample_id, again.replayed) == (receipt.sample_id, True)
    assert (await call(*to, "get_sample", receipt.sample_id)).state == "received"
    answer = await call(*to, "answer", "say hi.", user_id="ada", consent=consent, top_p=0.9, seed=1)
    assert (answer.text, len(answer.logprobs)) == ("Hi", 2)
    given = await call(*to, "feedback.score", answer.sample_id, 0.75, idempotency_key="f")
    assert (await call(*to, "feedback.score", answer.sample_id, 0.75, idempotency_key="f")).replayed
    assert not given.replayed
    with pytest.raises(NotFound):
        await call(*to, "feedback.thumb", "a sample that nobody received", up=True)
    await call(*to, "withdraw_consent", "ada")
    with pytest.raises(ConsentMissing) as refused:
        await call(*to, "submit", "name three trees.", user_id="ada", consent=consent)
    assert refused.value.reason == "withdrawn"


@both
async def test_keys_that_do_not_count(start_gateway: "StartGateway", client: Redis, keys: RunKeys, call: Any) -> None:
    gateway = await start_gateway()
    _, key = await KeyStore(client, keys).create("test", KeyClass.PLAYGROUND, "", frozenset({Scope.FEEDBACK}))
    with pytest.raises(PermissionDenied):
        await call(gateway.target, key, "answer", "say hi.", user_id="ada")
    with pytest.raises(Unauthenticated) as refused:
        await call(gateway.target, key[:-1] + "!", "answer", "say hi.", user_id="ada")
    assert key[:-1] not in str(refused.value)


@both
async def test_a_limit_says_when_to_come_back(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys, call: Any
) -> None:
    gateway = await start_gateway()
    _, key = await KeyStore(client, keys).create("test", KeyClass.PLAYGROUND, "", SCOPES, Limits(requests_per_minute=6))
    for _ in range(6):
        await call(gateway.target, key, "answer", "say hi.", user_id="ada")
    with pytest.raises(LimitReached) as limit:
        await call(gateway.target, key, "answer", "say hi.", user_id="ada", timeout=2.0)
    assert limit.value.retry_after_seconds is not None
    assert 5.0 < limit.value.retry_after_seconds <= 10.0


@both
async def test_a_limit_that_ends_soon_is_waited_for(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys, call: Any
) -> None:
    gateway = await start_gateway()
    _, key = await KeyStore(client, keys).create(
        "test", KeyClass.PLAYGROUND, "", SCOPES, Limits(requests_per_minute=30)
    )
    began = time.monotonic()
    for _ in range(31):
        assert (await call(gateway.target, key, "answer", "say hi.", user_id="ada", timeout=10.0)).text == "Hi"
    # 30 at once, and one every two seconds from then on.
    assert time.monotonic() - began >= 1.9
