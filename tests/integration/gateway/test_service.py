"""The gateway through the real client: what is admitted, what is refused and how, and what is answered."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from redis.asyncio import Redis

from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.streams import Streams
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    ConsentMissing,
    FinishReason,
    IdempotencyConflict,
    InvalidInput,
    LimitReached,
    NotFound,
    OnlineRLHFError,
    Submission,
    Unavailable,
)

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, StartGateway

SECRET = "xyzzy"


async def states(client: Redis, keys: RunKeys) -> dict[str, str]:
    ledger = Ledger(client, keys)
    assert await ledger.counts() == await ledger.audit()
    assert (await ledger.counts()).imbalance == 0
    return await ledger.states()


async def test_a_submitted_prompt_gets_a_receipt_and_is_fed(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    async with AsyncClient(gateway.target) as user:
        receipt = await user.submit("Name three.", user_id="ada")
        assert (receipt.replayed, receipt.num_prompt_tokens) == (False, len("Name three.") + 3)
        async with asyncio.timeout(5):
            while (await user.get_sample(receipt.sample_id)).state != "prompts":  # noqa: ASYNC110 - across a socket
                await asyncio.sleep(0.01)
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
]


async def test_each_malformed_prompt_gets_its_code_and_reason_and_no_message_repeats_it(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(max_prompt_bytes=80, max_prompt_tokens=40)
    async with AsyncClient(gateway.target) as user:
        for arguments, reason in MALFORMED:
            with pytest.raises(InvalidInput) as caught:
                await user.submit(**{"user_id": "ada", **arguments})
            error = caught.value
            assert (error.reason, error.code) == (reason, grpc.StatusCode.INVALID_ARGUMENT)
            assert SECRET not in str(error)
    assert await states(client, keys) == {}


async def test_what_cannot_be_learned_from_gets_its_code_and_reason(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    async with AsyncClient(gateway.target) as user:
        first = await user.submit("xyzzy one", user_id="ada", idempotency_key="k1")
        refused: list[tuple[type[OnlineRLHFError], grpc.StatusCode, str, dict[str, Any]]] = [
            (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS, "duplicate", {"text": "xyzzy one"}),
            (
                AlreadyExists,
                grpc.StatusCode.ALREADY_EXISTS,
                "duplicate",
                {"text": " XYZZY\u200b  one\n"},
            ),
            (
                IdempotencyConflict,
                grpc.StatusCode.FAILED_PRECONDITION,
                "idempotency_conflict",
                {"text": "xyzzy two", "idempotency_key": "k1"},
            ),
            (
                ConsentMissing,
                grpc.StatusCode.FAILED_PRECONDITION,
                "no_consent",
                {"text": "xyzzy three", "training_consent": False},
            ),
        ]
        for kind, code, reason, arguments in refused:
            with pytest.raises(kind) as caught:
                await user.submit(**{"user_id": "ada", **arguments})
            assert (caught.value.code, caught.value.reason) == (code, reason)
            assert SECRET not in str(caught.value)
        again = await user.submit("xyzzy one", user_id="ada", idempotency_key="k1")
    assert (again.sample_id, again.replayed) == (first.sample_id, True)
    assert set(await states(client, keys)) == {first.sample_id}


async def test_the_201st_prompt_of_a_user_is_refused(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    prompts = [Submission(text=f"prompt {number}", user_id="ada") for number in range(200)]
    async with AsyncClient(gateway.target) as user:
        results = [result async for result in user.submit_many(prompts)]
        assert all(result.error is None for result in results)
        with pytest.raises(LimitReached) as caught:
            await user.submit("prompt 200", user_id="ada")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "user_cap")
    assert "200" in str(caught.value)


async def test_of_300_at_once_over_20_connections_to_two_gateways_exactly_200_are_admitted(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    users = [AsyncClient(gateways[number % 2].target) for number in range(20)]
    tries = [users[number % 20].submit(f"prompt {number}", user_id="ada") for number in range(300)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    for user in users:
        await user.close()
    receipts = [outcome.sample_id for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 100
    assert len(receipts) == 200
    assert set(await states(client, keys)) == set(receipts)


async def test_the_same_prompt_sent_at_once_to_two_gateways_makes_one_sample(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    users = [AsyncClient(gateway.target) for gateway in gateways]
    tries = [users[number % 2].submit("one", user_id="ada", idempotency_key="k") for number in range(20)]
    receipts = await asyncio.gather(*tries)
    for user in users:
        await user.close()
    assert len({receipt.sample_id for receipt in receipts}) == 1
    assert [receipt.replayed for receipt in receipts].count(False) == 1
    assert set(await states(client, keys)) == {receipts[0].sample_id}


async def test_refusals_in_a_stream_are_replies_in_order(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    prompts = [
        Submission(text="one", user_id="ada"),
        Submission(text="", user_id="ada"),
        Submission(text="two", user_id="ada"),
        Submission(text="ONE", user_id="bob"),
        Submission(text="three", user_id="bob", training_consent=False),
        Submission(text="four", user_id="bob"),
    ]
    async with AsyncClient(gateway.target) as user:
        results = [result async for result in user.submit_many(prompts, window=3)]
    assert [result.submission for result in results] == prompts
    reasons = ["" if result.error is None else result.error.reason for result in results]
    assert reasons == ["", "empty", "", "duplicate", "no_consent", ""]


async def test_a_stream_answers_each_request_without_waiting_for_the_next(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        call = gateway_pb2_grpc.GatewayServiceStub(channel).SubmitPrompts(timeout=10)
        for number in range(3):
            request = gateway_pb2.SubmitPromptRequest(
                user_id="ada", text=b"text %d" % number, idempotency_key=f"k{number}", training_consent=True
            )
            await call.write(request)
            reply = await call.read()
            assert isinstance(reply, gateway_pb2.SubmitPromptsReply)
            assert reply.idempotency_key == f"k{number}"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_an_unknown_sample_is_not_found(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    async with AsyncClient(gateway.target) as user:
        with pytest.raises(NotFound) as caught:
            await user.get_sample(SECRET)
    assert caught.value.reason == "not_found"
    assert SECRET not in str(caught.value)


async def test_states_of_samples_as_clients_see_them(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    await client.hset(keys.ledger_states, mapping={"a": "trained:7", "b": "dropped:stale", "c": "scored"})
    async with AsyncClient(gateway.target) as user:
        trained, dropped, scored = [await user.get_sample(name) for name in "abc"]
    assert (trained.state, trained.trained_version, trained.drop_reason) == ("trained", 7, None)
    assert (dropped.state, dropped.trained_version, dropped.drop_reason) == ("dropped", None, "stale")
    assert scored.state == "scored"


async def test_an_answer_is_streamed_with_its_receipt_versions_and_finish_reason(
    start_gateway: "StartGateway", rollout: "FakeRollout", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(default_max_tokens=17)
    async with AsyncClient(gateway.target) as user:
        answer = await user.answer("Name one.", user_id="ada", training_consent=True)
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("Hi", (72, 105), FinishReason.EOS)
    assert answer.policy_version == 4
    assert (answer.completion.num_prompt_tokens, answer.completion.num_response_tokens) == (12, 2)
    assert answer.receipt is not None
    assert set(await states(client, keys)) == {answer.receipt.sample_id}
    (request,) = rollout.requests
    assert (request.max_tokens, request.temperature, request.top_p) == (17, 1.0, 1.0)
    assert len(request.prompt_token_ids) == 12


async def test_whatever_keeps_a_prompt_from_being_learned_from_it_is_answered(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(prompts_per_user=1)
    async with AsyncClient(gateway.target) as user:
        await user.submit("one", user_id="ada", idempotency_key="k")
        cases: list[tuple[str, str, dict[str, Any]]] = [
            ("no_consent", "two", {"training_consent": False}),
            ("duplicate", "ONE", {}),
            ("user_cap", "two", {}),
            ("idempotency_conflict", "two", {"idempotency_key": "k"}),
            ("bad_idempotency_key", "two", {"idempotency_key": "\n"}),
        ]
        for reason, text, arguments in cases:
            answer = await user.answer(text, user_id="ada", **{"training_consent": True, **arguments})
            assert (answer.text, answer.receipt) == ("Hi", None)
            assert answer.admission.not_admitted is not None
            assert answer.admission.not_admitted.reason == reason
    assert len(await states(client, keys)) == 1


async def test_a_malformed_prompt_is_not_answered(start_gateway: "StartGateway", rollout: "FakeRollout") -> None:
    gateway = await start_gateway(max_response_tokens=100, default_max_tokens=100)
    async with AsyncClient(gateway.target) as user:
        cases: list[tuple[str, dict[str, Any]]] = [
            ("empty", {"text": ""}),
            ("not_utf8", {"text": b"\xff"}),
            ("bad_user_id", {"user_id": ""}),
            ("bad_max_tokens", {"max_tokens": 101}),
            ("bad_temperature", {"temperature": 2.5}),
            ("bad_temperature", {"temperature": float("nan")}),
        ]
        for reason, arguments in cases:
            with pytest.raises(InvalidInput) as caught:
                await user.answer(**{"text": "one", "user_id": "ada", **arguments})
            assert caught.value.reason == reason
    assert rollout.requests == []


async def test_a_question_asked_again_with_its_key_makes_no_second_sample(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    async with AsyncClient(gateway.target) as user:
        first = await user.answer("one", user_id="ada", training_consent=True, idempotency_key="k")
        again = await user.answer("one", user_id="ada", training_consent=True, idempotency_key="k")
    assert first.receipt is not None and again.receipt is not None
    assert (again.receipt.sample_id, again.receipt.replayed) == (first.receipt.sample_id, True)
    assert len(await states(client, keys)) == 1


async def test_a_listener_who_leaves_stops_the_sampling(start_gateway: "StartGateway", rollout: "FakeRollout") -> None:
    gateway = await start_gateway()
    rollout.goes_on.clear()
    async with AsyncClient(gateway.target) as user, user.generate("one", user_id="ada") as stream:
        assert (await anext(stream)).text == "H"
    await asyncio.wait_for(rollout.cancelled.wait(), 5)


async def test_a_worker_that_dies_before_the_first_token_is_asked_again(
    start_gateway: "StartGateway", rollout: "FakeRollout"
) -> None:
    gateway = await start_gateway()
    rollout.num_failures = 2
    async with AsyncClient(gateway.target) as user:
        assert (await user.answer("one", user_id="ada")).text == "Hi"
    assert len(rollout.requests) == 3


async def test_an_answer_that_breaks_off_is_an_error_and_is_not_begun_again(
    start_gateway: "StartGateway", rollout: "FakeRollout"
) -> None:
    gateway = await start_gateway()
    rollout.breaks_off = True
    async with AsyncClient(gateway.target) as user:
        stream = user.generate("one", user_id="ada")
        assert (await anext(stream)).text == "H"
        with pytest.raises(Unavailable):
            await anext(stream)
    assert len(rollout.requests) == 1


async def test_without_workers_prompts_are_admitted_and_the_gateway_is_ready(
    start_gateway: "StartGateway", unused_port: Callable[[], int]
) -> None:
    gateway = await start_gateway(rollout_target=f"127.0.0.1:{unused_port()}", answer_seconds=0.5)
    async with AsyncClient(gateway.target) as user:
        assert (await user.submit("one", user_id="ada")).sample_id
        assert gateway.health.ready()
        with pytest.raises(Unavailable) as caught:
            await user.answer("two", user_id="ada", timeout=1.0)
        assert "rollout" in str(caught.value)


async def test_the_synchronous_client_does_the_same(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(prompts_per_user=5)

    def use() -> None:
        with Client(gateway.target) as user:
            receipt = user.submit("one", user_id="ada")
            assert user.get_sample(receipt.sample_id).sample_id == receipt.sample_id
            prompts = [Submission(text=f"text {number}", user_id="ada") for number in range(6)]
            results = list(user.submit_many(prompts, window=4))
            assert [result.submission for result in results] == prompts
            assert sorted(result.error.reason for result in results if result.error) == ["user_cap"] * 2
            with user.generate("two", user_id="bob", training_consent=True) as stream:
                assert [token.text for token in stream] == ["H", "i"]
                assert stream.completion.policy_version == 4
                assert stream.admission.receipt is not None
            assert user.answer("three", user_id="bob").text == "Hi"
            with pytest.raises(AlreadyExists) as caught:
                user.submit("ONE", user_id="carol")
            assert caught.value.reason == "duplicate"

    await asyncio.to_thread(use)
