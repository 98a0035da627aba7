"""The gateway through the real client: who is let in, what is refused and how, what is answered, what is not told."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from redis.asyncio import Redis

from integration.streams.support import eventually
from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.streams import Streams
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import (
    AsyncClient,
    Client,
    Consent,
    ConsentMissing,
    FinishReason,
    IdempotencyConflict,
    InvalidInput,
    LimitReached,
    Message,
    NotFound,
    OnlineRLHFError,
    PermissionDenied,
    Role,
    Submission,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, MakeKey, StartGateway

SECRET = "xyzzy"
DAY_SECONDS = 86_400.0


def consent(**changes: Any) -> Consent:
    return Consent(**{"notice_version": "1", "shown_at_seconds": time.time() - 60, **changes})


async def states(client: Redis, keys: RunKeys) -> dict[str, str]:
    ledger = Ledger(client, keys)

    async def is_audited() -> bool:
        # The feeder may move a sample between the two looks.
        counts = await ledger.counts()
        assert counts.imbalance == 0
        return counts == await ledger.audit()

    await eventually(is_audited, seconds=5)
    return await ledger.states()


async def admitted(client: Redis, keys: RunKeys, sample_ids: set[str]) -> None:
    """Wait until exactly these are in the ledger."""

    async def are() -> bool:
        return set(await states(client, keys)) == sample_ids

    await eventually(are, seconds=5)


async def test_a_submitted_prompt_gets_a_receipt_and_is_fed(
    start_gateway: "StartGateway", make_key: "MakeKey", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    admin = gateway.client(await make_key(Scope.GENERATE, Scope.ADMIN))
    async with gateway.client() as user, admin:
        receipt = await user.submit("Name three.", user_id="ada", consent=consent())
        assert (receipt.replayed, receipt.num_prompt_tokens) == (False, len("Name three.") + 3)
        async with asyncio.timeout(5):
            while (await admin.get_sample(receipt.sample_id)).state != "prompts":  # noqa: ASYNC110 - across a socket
                await asyncio.sleep(0.01)
        assert (await user.get_sample(receipt.sample_id)).state == "received"
    assert await Streams(client, keys).backlog(Stage.PROMPTS) == 1
    assert await states(client, keys) == {receipt.sample_id: "prompts"}


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"text": ""}, "empty"),
    ({"text": " \n\t\u200b "}, "empty"),
    ({"text": b"xyzzy \xff"}, "not_utf8"),
    ({"text": b"xyzzy \xed\xa0\x80"}, "not_utf8"),
    ({"text": "xyzzy \ud800"}, "not_utf8"),
    ({"text": "xyzzy \x00"}, "control_character"),
    ({"text": "xyzzy \x1b[0m"}, "control_character"),
    ({"text": "xyzzy" * 20}, "too_large"),
    ({"text": "xyzzy " * 10}, "too_many_tokens"),
    ({"text": "xyzzy", "user_id": ""}, "bad_user_id"),
    ({"text": "xyzzy", "user_id": "xyzzy\n"}, "bad_user_id"),
    ({"text": "xyzzy", "idempotency_key": ""}, "bad_idempotency_key"),
    ({"text": "xyzzy", "idempotency_key": "xyzzy" * 30}, "bad_idempotency_key"),
    ({"text": None, "messages": [Message(role=Role.ASSISTANT, text="xyzzy")]}, "bad_messages"),
]


async def test_each_malformed_prompt_gets_its_code_and_reason_and_no_message_repeats_it(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(max_prompt_bytes=80, max_context_tokens=40)
    async with gateway.client() as user:
        for arguments, reason in MALFORMED:
            with pytest.raises(InvalidInput) as caught:
                await user.submit(**{"user_id": "ada", "consent": consent(), **arguments})
            assert (caught.value.reason, caught.value.code) == (reason, grpc.StatusCode.INVALID_ARGUMENT)
            assert SECRET not in str(caught.value)
        with pytest.raises(ValueError, match="messages"):
            await user.submit("xyzzy", messages=[Message(role=Role.USER, text="x")], user_id="ada", consent=consent())
    assert await states(client, keys) == {}


KEYS = [None, "", "xyzzy", "orlhf_pg_" + "0" * 50, "Bearer xyzzy", "xyzzy\u00e9"]


async def test_without_a_good_key_nothing_is_done_and_all_bad_keys_look_the_same(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys, rollout: "FakeRollout"
) -> None:
    gateway = await start_gateway()
    told: set[str] = set()
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        for key in KEYS:
            metadata = [] if key is None else [("authorization", f"Bearer {key}".encode().decode("ascii", "ignore"))]
            calls: list[Any] = [
                stub.GetSample(gateway_pb2.GetSampleRequest(sample_id="0" * 32), metadata=metadata, timeout=5),
                stub.SubmitPrompt(_request("one"), metadata=metadata, timeout=5),
                stub.WithdrawConsent(gateway_pb2.WithdrawConsentRequest(user_id="a"), metadata=metadata, timeout=5),
            ]
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
                told.add(caught.value.details() or "")
            stream = stub.Generate(
                gateway_pb2.GenerateRequest(user_id="ada", text=b"one"), metadata=metadata, timeout=5
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(aiter(stream))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(told) == 1 and SECRET not in told.pop()
    assert await states(client, keys) == {} and rollout.requests == []


def _request(text: str, **changes: Any) -> gateway_pb2.SubmitPromptRequest:
    fields: dict[str, Any] = {"user_id": "ada", "text": text.encode(), "idempotency_key": text, **changes}
    shown = gateway_pb2.Consent(notice_version="1", shown_at_seconds=time.time() - 60)
    return gateway_pb2.SubmitPromptRequest(**{"consent": shown, **fields})


async def test_a_key_does_what_its_scopes_say(start_gateway: "StartGateway", make_key: "MakeKey") -> None:
    gateway = await start_gateway()
    only_feedback = await make_key(Scope.FEEDBACK)
    async with gateway.client(only_feedback) as user:
        with pytest.raises(PermissionDenied):
            await user.answer("one", user_id="ada")
        with pytest.raises(PermissionDenied):
            await user.submit("one", user_id="ada", consent=consent())
    only_generate = await make_key(Scope.GENERATE)
    async with gateway.client(only_generate) as user:
        with pytest.raises(PermissionDenied):
            await user.feedback.thumb("0" * 32, up=True)


CONSENTS: list[tuple[str, dict[str, Any]]] = [
    ("unknown_notice", {"notice_version": "0"}),
    ("notice_expired", {"shown_at_seconds": time.time() - 31 * DAY_SECONDS}),
    ("notice_in_future", {"shown_at_seconds": time.time() + DAY_SECONDS}),
    ("notice_expired", {"shown_at_seconds": 1.0}),
]


async def test_a_submission_needs_proof_of_consent_and_an_answer_does_not(
    start_gateway: "StartGateway", make_key: "MakeKey", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    async with gateway.client() as user:
        for reason, changes in CONSENTS:
            with pytest.raises(ConsentMissing) as caught:
                await user.submit("one", user_id="ada", consent=consent(**changes))
            assert caught.value.reason == reason
            assert (await user.answer("one", user_id="ada", consent=consent(**changes))).text == "Hi"
        with pytest.raises(ConsentMissing):
            await user.submit("one", user_id="ada", consent=None)
    production = await make_key(Scope.GENERATE, key_class=KeyClass.PRODUCTION)
    async with gateway.client(production) as user:
        with pytest.raises(ConsentMissing) as caught:
            await user.submit("one", user_id="ada", consent=consent())
        assert caught.value.reason == "production_key"
        assert (await user.answer("one", user_id="ada", consent=consent())).text == "Hi"
    assert await states(client, keys) == {}


async def test_what_became_of_a_prompt_is_not_told(
    start_gateway: "StartGateway", make_key: "MakeKey", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(prompts_per_user=1)
    other = await make_key()
    async with gateway.client() as ada, gateway.client(other) as bob:
        first = await ada.submit("xyzzy one", user_id="ada", consent=consent())
        for text in ("xyzzy one", " XYZZY\u200b  one\n", "write to ada@example.com", "something new"):
            receipt = await bob.submit(text, user_id="bob", consent=consent())
            assert not receipt.replayed and receipt.sample_id != first.sample_id
            assert await bob.get_sample(receipt.sample_id) == await _received(bob, receipt.sample_id)
            answer = await bob.answer(text, user_id="bob", consent=consent())
            assert answer.text == "Hi" and not answer.receipt.replayed
        with pytest.raises(NotFound) as not_mine:
            await bob.get_sample(first.sample_id)
        with pytest.raises(NotFound) as nobodys:
            await bob.get_sample("0" * 32)
        assert str(not_mine.value) == str(nobodys.value)
    assert len(await states(client, keys)) == 2


async def _received(user: AsyncClient, sample_id: str) -> Any:
    sample = await user.get_sample(sample_id)
    assert (sample.state, sample.drop_reason, sample.trained_version) == ("received", None, None)
    return sample


async def test_the_same_idempotency_key_is_the_same_receipt_or_a_conflict(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    async with gateway.client() as user:
        first = await user.submit("one", user_id="ada", consent=consent(), idempotency_key="k")
        again = await user.submit("one", user_id="ada", consent=consent(), idempotency_key="k")
        assert (again.sample_id, again.replayed) == (first.sample_id, True)
        with pytest.raises(IdempotencyConflict):
            await user.submit("two", user_id="ada", consent=consent(), idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            await user.answer("two", user_id="ada", idempotency_key="k")
        other = await user.submit("two", user_id="bob", consent=consent(), idempotency_key="k")
        assert not other.replayed
    assert set(await states(client, keys)) == {first.sample_id, other.sample_id}


async def test_of_300_at_once_over_20_connections_to_two_gateways_exactly_200_are_admitted(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    # Fed at once, so that none can be displaced by one with a lower hash.
    gateways = [await start_gateway(prompts_bound=1000), await start_gateway(prompts_bound=1000)]
    users = [gateways[number % 2].client(gateways[0].api_key) for number in range(20)]
    tries = [users[number % 20].submit(f"prompt {number}", user_id="ada", consent=consent()) for number in range(300)]
    receipts = await asyncio.gather(*tries)
    for user in users:
        await user.close()
    assert len({receipt.sample_id for receipt in receipts}) == 300
    live = [state for state in (await states(client, keys)).values() if state != "dropped:displaced"]
    assert len(live) == 200


async def test_the_same_prompt_sent_at_once_to_two_gateways_makes_one_sample(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    users = [gateway.client(gateways[0].api_key) for gateway in gateways]
    shown = consent()
    tries = [users[n % 2].submit("one", user_id="ada", consent=shown, idempotency_key="k") for n in range(20)]
    receipts = await asyncio.gather(*tries)
    for user in users:
        await user.close()
    assert len({receipt.sample_id for receipt in receipts}) == 1
    assert [receipt.replayed for receipt in receipts].count(False) == 1
    assert set(await states(client, keys)) == {receipts[0].sample_id}


async def test_refusals_in_a_stream_are_replies_in_order(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    prompts = [
        Submission(text="one", user_id="ada", consent=consent()),
        Submission(text="", user_id="ada", consent=consent()),
        Submission(text="two", user_id="ada", consent=consent()),
        Submission(text="ONE", user_id="bob", consent=consent()),
        Submission(text="three", user_id="bob", consent=None),
        Submission(text="four", user_id="bob", consent=consent()),
    ]
    async with gateway.client() as user:
        results = [result async for result in user.submit_many(prompts, window=3)]
    assert [result.submission for result in results] == prompts
    reasons = ["" if result.error is None else result.error.reason for result in results]
    assert reasons == ["", "empty", "", "", "no_consent", ""]


async def test_a_stream_answers_each_request_without_waiting_for_the_next(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        metadata = [("authorization", f"Bearer {gateway.api_key}")]
        call = gateway_pb2_grpc.GatewayServiceStub(channel).SubmitPrompts(timeout=10, metadata=metadata)
        for number in range(3):
            await call.write(_request(f"text {number}", idempotency_key=f"k{number}"))
            reply = await call.read()
            assert isinstance(reply, gateway_pb2.SubmitPromptsReply)
            assert reply.idempotency_key == f"k{number}" and reply.HasField("receipt")
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_a_limit_says_what_was_reached_and_when_to_come_back(
    start_gateway: "StartGateway", make_key: "MakeKey"
) -> None:
    gateway = await start_gateway()
    key = await make_key(limits=Limits(requests_per_minute=2))
    async with gateway.client(key) as user:
        for _ in range(2):
            await user.answer("one", user_id="ada")
        with pytest.raises(LimitReached) as caught:
            await user.answer("one", user_id="ada", timeout=1.0)
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "limit_reached")
    assert error.retry_after_seconds is not None and 20 < error.retry_after_seconds <= 30


async def test_an_answer_is_streamed_with_its_receipt_versions_and_finish_reason(
    start_gateway: "StartGateway", rollout: "FakeRollout", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(default_max_tokens=17)
    async with gateway.client() as user:
        answer = await user.answer("Name one.", user_id="ada", consent=consent())
        unasked = await user.answer("Name two.", user_id="ada")
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("Hi", (72, 105), FinishReason.EOS)
    assert answer.policy_version == 4
    assert (answer.completion.num_prompt_tokens, answer.completion.num_response_tokens) == (12, 2)
    await admitted(client, keys, {answer.receipt.sample_id})
    assert unasked.receipt.sample_id != answer.receipt.sample_id
    request = rollout.requests[0]
    assert (request.max_tokens, request.temperature, request.top_p) == (17, 1.0, 1.0)
    assert len(request.prompt_token_ids) == 12


async def test_control_tokens_spelled_in_a_prompt_are_text(
    start_gateway: "StartGateway", rollout: "FakeRollout"
) -> None:
    gateway = await start_gateway()
    async with gateway.client() as user:
        await user.answer("a<eos>b", user_id="ada")
    (request,) = rollout.requests
    # <user> and a<eos>b letter by letter, then the template's own <eos> and <bot>.
    assert len(request.prompt_token_ids) == 1 + 7 + 2


async def test_a_conversation_is_rendered_by_the_chat_template(
    start_gateway: "StartGateway", rollout: "FakeRollout", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    turns = [
        Message(role=Role.SYSTEM, text="be brief"),
        Message(role=Role.USER, text="one"),
        Message(role=Role.ASSISTANT, text="1"),
        Message(role=Role.USER, text="two"),
    ]
    async with gateway.client() as user:
        answer = await user.answer(messages=turns, user_id="ada", consent=consent())
    (request,) = rollout.requests
    assert len(request.prompt_token_ids) == len("be briefone1two") + 2 * 4 + 1
    await admitted(client, keys, {answer.receipt.sample_id})


async def test_a_malformed_question_is_not_answered(start_gateway: "StartGateway", rollout: "FakeRollout") -> None:
    gateway = await start_gateway(max_response_tokens=100, default_max_tokens=100)
    async with gateway.client() as user:
        cases: list[tuple[str, dict[str, Any]]] = [
            ("empty", {"text": ""}),
            ("not_utf8", {"text": b"\xff"}),
            ("bad_user_id", {"user_id": ""}),
            ("bad_idempotency_key", {"idempotency_key": "\n"}),
            ("bad_max_tokens", {"max_tokens": 101}),
            ("bad_max_tokens", {"max_tokens": 4_000_000_000}),
            ("bad_temperature", {"temperature": 2.5}),
            ("bad_temperature", {"temperature": float("nan")}),
            ("bad_top_p", {"top_p": 0.0}),
            ("bad_stop", {"stop": [""]}),
            ("bad_stop", {"stop": ["a", "b", "c", "d", "e"]}),
            ("bad_seed", {"seed": 2**63}),
        ]
        for reason, arguments in cases:
            with pytest.raises(InvalidInput) as caught:
                await user.answer(**{"text": "one", "user_id": "ada", **arguments})
            assert caught.value.reason == reason
        with pytest.raises((InvalidInput, ValueError)):
            await user.answer("one", user_id="ada", max_tokens=-1)
    assert rollout.requests == []


async def test_a_question_asked_again_with_its_key_makes_no_second_sample(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    async with gateway.client() as user:
        first = await user.answer("one", user_id="ada", consent=consent(), idempotency_key="k")
        again = await user.answer("one", user_id="ada", consent=consent(), idempotency_key="k")
    assert (again.receipt.sample_id, again.receipt.replayed) == (first.receipt.sample_id, True)
    await admitted(client, keys, {first.receipt.sample_id})


async def test_a_listener_who_leaves_stops_the_sampling_and_is_charged_for_what_was_made(
    start_gateway: "StartGateway", rollout: "FakeRollout", make_key: "MakeKey"
) -> None:
    gateway = await start_gateway(default_max_tokens=80)
    # Each question reserves 6 + 80 tokens: two of them only where the first gives back what it did not use.
    key = await make_key(limits=Limits(tokens_per_minute=100))
    rollout.goes_on.clear()
    async with gateway.client(key) as user:
        async with user.generate("one", user_id="ada") as stream:
            assert (await anext(stream)).text == "H"
        await asyncio.wait_for(rollout.cancelled.wait(), 5)
        rollout.goes_on.set()
        assert (await user.answer("two", user_id="ada", timeout=5.0)).text == "Hi"
        # 7 and 8 were used; 86 more do not fit.
        with pytest.raises(LimitReached) as caught:
            await user.answer("six", user_id="ada", timeout=0.5)
    assert "tokens" in str(caught.value)


async def test_a_worker_that_dies_before_the_first_token_is_asked_again(
    start_gateway: "StartGateway", rollout: "FakeRollout"
) -> None:
    gateway = await start_gateway()
    rollout.num_failures = 2
    async with gateway.client() as user:
        assert (await user.answer("one", user_id="ada")).text == "Hi"
    assert len(rollout.requests) == 3


async def test_an_answer_that_breaks_off_is_an_error_and_is_not_begun_again(
    start_gateway: "StartGateway", rollout: "FakeRollout"
) -> None:
    gateway = await start_gateway()
    rollout.breaks_off = True
    async with gateway.client() as user:
        stream = user.generate("one", user_id="ada")
        assert (await anext(stream)).text == "H"
        with pytest.raises(Unavailable):
            await anext(stream)
    assert len(rollout.requests) == 1


async def test_without_workers_prompts_are_admitted_and_the_gateway_is_ready(
    start_gateway: "StartGateway", unused_port: Callable[[], int]
) -> None:
    gateway = await start_gateway(rollout_target=f"127.0.0.1:{unused_port()}", answer_seconds=0.5)
    async with gateway.client() as user:
        assert (await user.submit("one", user_id="ada", consent=consent())).sample_id
        assert gateway.health.ready()
        with pytest.raises(Unavailable) as caught:
            await user.answer("two", user_id="ada", timeout=1.0)
        assert "rollout" in str(caught.value)


async def test_feedback_is_for_answers_that_this_key_received(
    start_gateway: "StartGateway", make_key: "MakeKey"
) -> None:
    gateway = await start_gateway()
    other = await make_key()
    async with gateway.client() as ada, gateway.client(other) as bob:
        answer = await ada.answer("one", user_id="ada", consent=consent())
        given = await ada.feedback.thumb(answer.receipt.sample_id, up=True, idempotency_key="f")
        again = await ada.feedback.thumb(answer.receipt.sample_id, up=True, idempotency_key="f")
        assert (again.feedback_id, given.replayed, again.replayed) == (given.feedback_id, False, True)
        with pytest.raises(IdempotencyConflict):
            await ada.feedback.thumb(answer.receipt.sample_id, up=False, idempotency_key="f")
        for sample_id in (answer.receipt.sample_id, "0" * 32, "xyzzy"):
            with pytest.raises(OnlineRLHFError) as caught:
                await bob.feedback.thumb(sample_id, up=True)
            assert isinstance(caught.value, NotFound) and SECRET not in str(caught.value)


async def test_after_a_withdrawal_only_consent_given_later_counts(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(prompts_bound=1)
    async with gateway.client() as user:
        before = consent()
        await user.submit("one", user_id="ada", consent=before)
        await user.submit("two", user_id="ada", consent=before)
        await user.submit("three", user_id="bob", consent=before)
        assert await user.withdraw_consent("ada") == 2
        with pytest.raises(ConsentMissing) as caught:
            await user.submit("four", user_id="ada", consent=before)
        assert caught.value.reason == "withdrawn"
        assert (await user.answer("four", user_id="ada", consent=before)).text == "Hi"
        await asyncio.sleep(1.1)
        later = await user.submit("five", user_id="ada", consent=Consent.shown_now("1"))
    found = await states(client, keys)
    assert sorted(found.values())[:2] == ["dropped:withdrawn", "dropped:withdrawn"]
    assert found[later.sample_id] in ("pool", "prompts")


async def test_a_decision_is_recorded_once_a_request_and_holds_no_text(
    start_gateway: "StartGateway", caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gateway = await start_gateway()
    async with gateway.client() as user:
        await user.answer(f"tell {SECRET}", user_id=f"user-{SECRET}", consent=consent())
        with pytest.raises(InvalidInput):
            await user.answer("", user_id=f"user-{SECRET}")

        async def both() -> bool:
            return len([record for record in caplog.records if record.message == "decision"]) == 2

        await eventually(both, seconds=5)
    records = [vars(record) for record in caplog.records if record.message == "decision"]
    outcomes = {record["outcome"]: record for record in records}
    assert outcomes["completed"]["verdict"] == "admitted"
    assert outcomes["completed"]["num_response_tokens"] == 2
    assert outcomes["refused"]["reason"] == "empty"
    assert SECRET not in repr([vars(record) for record in caplog.records])
    assert gateway.api_key not in repr([vars(record) for record in caplog.records])


async def test_the_synchronous_client_sees_the_same(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()

    def use() -> tuple[str, str]:
        with Client(gateway.target, api_key=gateway.api_key) as user:
            answer = user.answer("one", user_id="ada")
            with pytest.raises(Unauthenticated):
                Client(gateway.target, api_key="orlhf_pg_" + "1" * 50).answer("one", user_id="ada")
            return answer.text, user.get_sample(answer.receipt.sample_id).state

    assert await asyncio.to_thread(use) == ("Hi", "received")
