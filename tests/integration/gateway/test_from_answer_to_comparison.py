"""The whole way through a running gateway: an answer, its correction, a snapshot with a comparison; then erasure."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from redis.asyncio import Redis

from integration.gateway.conftest import FakeRollout, MakeKey, StartGateway
from onlinerlhf.gateway.access.callers import Scope
from onlinerlhf.gateway.rights import owned
from onlinerlhf.gateway.snapshot.build import build
from onlinerlhf.gateway.snapshot.manifest import RunRules
from onlinerlhf.gateway.snapshot.material import read_material
from onlinerlhf.gateway.snapshot.rules import SnapshotRules
from onlinerlhf.runtime.channels import open_channel
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command
from onlinerlhf.v1 import data_pb2, data_pb2_grpc
from onlinerlhf_client import Consent


async def is_kept(client: Redis, keys: RunKeys, sample_id: str) -> None:
    """Answers are kept when clients already have them."""
    for _ in range(250):
        if await command(client, "EXISTS", owned.answer(keys, sample_id)):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the answer was not kept within 5 s")


async def snapshot(client: Redis, keys: RunKeys, out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The manifest, and the rows of comparisons.parquet."""
    rules, run_rules = SnapshotRules(), RunRules()
    manifest = build(await read_material(client, keys), out, run=keys.run, rules=rules, run_rules=run_rules)
    rows: list[dict[str, Any]] = pq.read_table(out / "comparisons.parquet").to_pylist()
    return manifest, rows


async def test_a_correction_becomes_a_comparison_until_its_owner_is_erased(
    start_gateway: StartGateway,
    make_key: MakeKey,
    rollout: FakeRollout,
    client: Redis,
    keys: RunKeys,
    tmp_path: Path,
) -> None:
    gateway = await start_gateway()
    async with gateway.client() as api:
        answer = await api.answer("name three foods", user_id="ada", consent=Consent.shown_now("1"))
        await is_kept(client, keys, answer.sample_id)
        first = await api.feedback.correct(answer.sample_id, "lemon, bread, rice", idempotency_key="f")
        again = await api.feedback.correct(answer.sample_id, "lemon, bread, rice", idempotency_key="f")
    assert (first.replayed, again.replayed) == (False, True)
    manifest, rows = await snapshot(client, keys, tmp_path / "before")
    assert manifest["policy_versions"] == [4]
    assert [(row["prompt"], row["responses"], row["ranks"]) for row in rows] == [
        ([{"role": "user", "content": "name three foods"}], ["lemon, bread, rice", "Hi"], [0, 1])
    ]

    metadata = (("authorization", f"Bearer {await make_key(Scope.ADMIN)}"),)
    async with open_channel(gateway.target) as channel:
        rights = data_pb2_grpc.DataServiceStub(channel)
        export = rights.ExportUser(data_pb2.ExportUserRequest(user_id="ada"), metadata=metadata, timeout=10)
        pieces = {piece.kind: json.loads(piece.json) async for piece in export}
        assert sorted(pieces) == ["answer", "feedback", "prompt", "receipt", "sample_state", "withdrawal"]
        assert (pieces["answer"]["response"], pieces["feedback"]["text"]) == ("Hi", "lemon, bread, rice")
        await rights.EraseUser(data_pb2.EraseUserRequest(user_id="ada"), metadata=metadata, timeout=10)
        found = await rights.VerifyErasure(data_pb2.VerifyErasureRequest(user_id="ada"), metadata=metadata, timeout=10)
        assert found.clean
    manifest, rows = await snapshot(client, keys, tmp_path / "after")
    assert (manifest["counts"]["prompts"], manifest["counts"]["feedback"], rows) == (0, 0, [])
