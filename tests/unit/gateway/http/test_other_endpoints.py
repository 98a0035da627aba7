"""Models, feedback, health, and the document that describes them all."""

from functools import partial

import httpx
import pytest
from prometheus_client import generate_latest

from onlinerlhf.gateway.http.app import create_app
from onlinerlhf.gateway.kept.judgements import Correction, Judgement, Ranking, Score, Thumb
from unit.gateway.http.fake_desk import SETTINGS, FakeDesk


async def test_the_policy_is_the_one_model(http: httpx.AsyncClient) -> None:
    models = (await http.get("/v1/models")).json()
    assert models["object"] == "list"
    (model,) = models["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("policy", "model", "onlinerlhf")
    assert (await http.get("/v1/models/policy")).json() == model
    assert (await http.get("/v1/models/an/other")).status_code == 404


@pytest.mark.parametrize(
    ("body", "judgement"),
    [
        ({"kind": "thumb", "sample_id": "sample-1", "up": False}, Thumb(sample_id="sample-1", up=False)),
        ({"kind": "score", "sample_id": "sample-1", "value": 1}, Score(sample_id="sample-1", value=1.0)),
        (
            {"kind": "correction", "sample_id": "sample-1", "text": "Hé"},
            Correction(sample_id="sample-1", text=b"H\xc3\xa9"),
        ),
        ({"kind": "ranking", "sample_ids": ["sample-2", "sample-1"]}, Ranking(sample_ids=("sample-2", "sample-1"))),
    ],
)
async def test_four_kinds_of_feedback_reach_the_desk(
    http: httpx.AsyncClient, desk: FakeDesk, body: dict[str, object], judgement: Judgement
) -> None:
    response = await http.post("/v1/feedback", json=body, headers={"Idempotency-Key": "again"})
    assert response.json() == {"id": "feedback-1", "object": "feedback", "replayed": True}
    assert desk.judgements == [(judgement, "again")]


async def test_feedback_without_an_idempotency_key_is_always_new(http: httpx.AsyncClient, desk: FakeDesk) -> None:
    for _ in range(2):
        await http.post("/v1/feedback", json={"kind": "thumb", "sample_id": "sample-1", "up": True})
    (_, first), (_, second) = desk.judgements
    assert first != second


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"kind": "zanzibar", "sample_id": "sample-1"}, 400),
        ({"sample_id": "sample-1", "up": True}, 400),
        ({"kind": "score", "sample_id": "sample-1", "value": 1.01}, 400),
        ({"kind": "ranking", "sample_ids": ["sample-1"]}, 400),
        ({"kind": "thumb", "sample_id": "zanzibar", "up": True}, 404),
    ],
)
async def test_feedback_that_is_refused(http: httpx.AsyncClient, body: dict[str, object], status: int) -> None:
    response = await http.post("/v1/feedback", json=body)
    assert response.status_code == status
    assert "zanzibar" not in response.text


async def test_health_needs_no_key_and_tells_no_details(desk: FakeDesk) -> None:
    for is_ready, status in ((True, 200), (False, 503)):
        transport = httpx.ASGITransport(create_app(desk, SETTINGS, is_ready=partial(bool, is_ready)))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            response = await client.get("/healthz")
        assert response.status_code == status
        assert response.json() == {"status": "ok" if is_ready else "unavailable"}


async def test_the_document_names_every_path_and_the_key_that_it_takes(http: httpx.AsyncClient) -> None:
    assert (await http.get("/docs")).status_code == 200
    document = (await http.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        "/v1/models",
        "/v1/models/{model}",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/feedback",
        "/healthz",
    }
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert (path == "/healthz") == ("security" not in operation)
    assert not document["components"]["schemas"]["ChatRequest"]["additionalProperties"]


async def test_what_is_measured_goes_by_the_route_and_never_by_the_path(http: httpx.AsyncClient) -> None:
    await http.get("/v1/models/zanzibar")
    await http.get("/zanzibar")
    measured = generate_latest().decode()
    assert 'onlinerlhf_gateway_http_seconds_count{route="/v1/models/{model:path}",status="404"}' in measured
    assert 'onlinerlhf_gateway_http_seconds_count{route="none",status="404"}' in measured
    assert "zanzibar" not in measured
