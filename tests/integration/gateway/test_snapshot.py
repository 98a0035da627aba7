"""Snapshots of a run's Redis, and what training makes of them."""

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from integration.gateway.receiving import DIGESTS, Stores, api_key, caller
from onlinerlhf.cli_data import data
from onlinerlhf.core.errors import DataError
from onlinerlhf.core.samples import ConsentProof, Prompt, UseCase
from onlinerlhf.gateway.access.callers import Caller
from onlinerlhf.gateway.kept.feedback import Correction, Judgement, Ranking, Score, Thumb
from onlinerlhf.gateway.snapshot.build import build
from onlinerlhf.gateway.snapshot.manifest import RunRules
from onlinerlhf.gateway.snapshot.material import Material, read_material
from onlinerlhf.gateway.snapshot.rules import SnapshotRules
from onlinerlhf.learner.bootstrap import tiny_models
from onlinerlhf.learner.training.data import load_prompts, load_rankings
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command

QUESTIONS = ("name three foods that are yellow", "write a poem about a heron", "what is the tallest hill of all")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    """Of the smallest models that `onlinerlhf bootstrap` makes."""
    path = tmp_path_factory.mktemp("models")
    tiny_models(path, tie_word_embeddings=False)
    return PromptTokenizer.load(path / "sft")


@pytest.fixture
def stores(client: Redis, keys: RunKeys) -> Stores:
    """One gateway's."""
    return Stores(client, keys)


async def keep_prompt(client: Redis, keys: RunKeys, who: Caller, prompt_id: str, text: str, *, split: str = "") -> None:
    """As an admission does."""
    prompt = Prompt(
        sample_id=prompt_id,
        prompt_id=prompt_id,
        owner=who.owner,
        tenant=who.tenant,
        consent=ConsentProof(key_class="playground", notice_version="1", shown_at_seconds=1000.0),
        text=text,
        token_ids=(1, 2, 3),
        epoch=0,
        admitted_at_seconds=1000.5,
        use_case=UseCase.GENERATION,
        use_case_source="rules",
    )
    await command(client, "SET", keys.prompt(prompt_id), wire.dump_prompt(prompt))
    await command(client, "ZADD", keys.prompts_by_age, 1000, prompt_id)
    await command(client, "ZADD", keys.prompts_of(who.owner), int(prompt_id[:8], 16), prompt_id)
    if split:
        await command(client, "HSET", keys.key("held_out"), prompt_id, split)


async def give_all_kinds(client: Redis, keys: RunKeys, stores: Stores) -> None:
    """Three users with two answers a prompt; every kind of judgement; the third is held out."""
    for number, (user, question) in enumerate(zip(("ada", "grace", "alan"), QUESTIONS, strict=True)):
        who, key = caller(user), api_key()
        first, second = await stores.answer(who, num=2, response=f"response {number}", prompt=question)
        await keep_prompt(client, keys, who, first, question, split="test" if user == "alan" else "")
        given: tuple[Judgement, ...] = (
            Ranking(sample_ids=(second, first)),
            Correction(sample_id=first, text=f"better {number}".encode()),
            Thumb(sample_id=first, up=False),
            Score(sample_id=second, value=0.75),
        )
        for place, judgement in enumerate(given):
            await stores.feedback.give(key, judgement, idempotency_key=f"{user} {place}")


def built(material: Material, out: Path) -> dict[str, Any]:
    return build(
        material, out, run="test", rules=SnapshotRules(), run_rules=RunRules(valid_share=0.05, test_share=0.05)
    )


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


async def test_a_snapshot_has_what_is_held_and_a_manifest_that_says_so(
    client: Redis, keys: RunKeys, stores: Stores, tmp_path: Path
) -> None:
    await give_all_kinds(client, keys, stores)
    manifest = built(await read_material(client, keys), tmp_path / "snapshot")
    assert json.loads((tmp_path / "snapshot" / "manifest.json").read_text()) == manifest
    assert {name: entry["rows"] for name, entry in manifest["files"].items()} == {
        "prompts.parquet": 2,
        "prompts_valid.parquet": 0,
        "prompts_test.parquet": 1,
        "answers.parquet": 6,
        "feedback.parquet": 12,
        "comparisons.parquet": 4,
        "comparisons_valid.parquet": 0,
        "comparisons_test.parquet": 2,
    }
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "snapshot" / name).read_bytes()).hexdigest() == entry["sha256"]
    assert manifest["counts"]["by_split"] == {"test": 1, "train": 2}
    assert manifest["counts"]["users"] == 3
    assert manifest["policy_versions"] == [3]
    assert manifest["rules"]["prompts_per_user"]["most"] == 200
    assert manifest["rules"]["near_duplicates"]["threshold"] == 0.7


async def test_rows_carry_splits_use_cases_and_digests_for_users(
    client: Redis, keys: RunKeys, stores: Stores, tmp_path: Path
) -> None:
    await give_all_kinds(client, keys, stores)
    built(await read_material(client, keys), tmp_path / "snapshot")
    prompts = rows(tmp_path / "snapshot" / "prompts.parquet")
    assert {row["prompt"] for row in prompts} == set(QUESTIONS[:2])
    assert {row["user"] for row in prompts} == {DIGESTS.owner("acme", "ada"), DIGESTS.owner("acme", "grace")}
    feedback = rows(tmp_path / "snapshot" / "feedback.parquet")
    assert sorted((row["kind"], row["value"]) for row in feedback if row["value"] is not None) == [
        *[("score", 0.75)] * 3,
        *[("thumb", 0.0)] * 3,
    ]
    for name in ("prompts", "answers", "feedback", "comparisons"):
        for row in rows(tmp_path / "snapshot" / f"{name}.parquet"):
            assert (row["use_case"], row["use_case_source"]) == ("generation", "rules")
    splits = {row["user"]: row["split"] for row in rows(tmp_path / "snapshot" / "answers.parquet")}
    assert splits[DIGESTS.owner("acme", "alan")] == "test"
    everything = b"".join(path.read_bytes() for path in (tmp_path / "snapshot").iterdir())
    assert not any(word in everything for word in (b"ada", b"alan", b"acme"))


async def test_train_reward_reads_the_comparisons(
    client: Redis, keys: RunKeys, stores: Stores, tmp_path: Path, tokenizer: PromptTokenizer
) -> None:
    await give_all_kinds(client, keys, stores)
    built(await read_material(client, keys), tmp_path / "snapshot")
    rankings = load_rankings(
        tmp_path / "snapshot" / "comparisons.parquet", tokenizer, max_prompt_tokens=100, max_response_tokens=100
    )
    assert len(rankings) == 4
    assert all(ranking.has_pairs and ranking.ranks == [0, 1] for ranking in rankings)
    responses = {tuple(tokenizer.decode(ids) for ids in ranking.responses) for ranking in rankings}
    assert responses == {
        ("response 0 1", "response 0 0"),
        ("better 0", "response 0 0"),
        ("response 1 1", "response 1 0"),
        ("better 1", "response 1 0"),
    }
    assert {tuple(ranking.prompt) for ranking in rankings} == {
        tuple(tokenizer.encode_prompt(question)) for question in QUESTIONS[:2]
    }
    prompts = load_prompts(tmp_path / "snapshot" / "prompts.parquet", tokenizer, max_prompt_tokens=100)
    assert len(prompts) == 2


async def test_the_same_data_give_the_same_bytes(client: Redis, keys: RunKeys, stores: Stores, tmp_path: Path) -> None:
    await give_all_kinds(client, keys, stores)
    for name in ("one", "two"):
        built(await read_material(client, keys), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 9
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


async def test_nothing_of_an_erased_owner_is_in_it_whatever_was_left_behind(
    client: Redis, keys: RunKeys, stores: Stores, tmp_path: Path
) -> None:
    await give_all_kinds(client, keys, stores)
    await command(client, "HSET", keys.blocked, DIGESTS.owner("acme", "ada"), "erased")
    manifest = built(await read_material(client, keys), tmp_path / "snapshot")
    assert manifest["dropped"]["prompts"] == {"erased": 1}
    assert manifest["dropped"]["answers"] == {"erased": 2}
    assert manifest["dropped"]["feedback"] == {"erased": 4}
    everything = b"".join(path.read_bytes() for path in (tmp_path / "snapshot").iterdir())
    assert DIGESTS.owner("acme", "ada").encode() not in everything


async def test_a_clock_that_was_ahead_does_not_outlive_a_withdrawal(
    client: Redis, keys: RunKeys, tmp_path: Path
) -> None:
    for user, admitted_at, text in (("ada", 900, QUESTIONS[0]), ("grace", 901, QUESTIONS[1])):
        prompt_id = f"{admitted_at:032x}"
        await keep_prompt(client, keys, caller(user), prompt_id, text)
        await command(client, "ZADD", keys.prompts_by_age, admitted_at, prompt_id)
        await command(client, "HSET", keys.blocked, caller(user).owner, "withdrawn:900")
    manifest = built(await read_material(client, keys), tmp_path / "snapshot")
    assert manifest["dropped"]["prompts"]["withdrawn"] == 1
    assert [row["prompt"] for row in rows(tmp_path / "snapshot" / "prompts.parquet")] == [QUESTIONS[1]]


async def test_records_that_are_gone_or_broken_are_counted(
    client: Redis, keys: RunKeys, stores: Stores, tmp_path: Path
) -> None:
    await give_all_kinds(client, keys, stores)
    await command(client, "ZADD", keys.prompts_by_age, 1, "f" * 32)
    await command(client, "ZADD", keys.key("answers_by_age"), 1, "f" * 32)
    await command(client, "HSET", keys.key("feedback", "0" * 32), "value", "no json")
    await command(client, "ZADD", keys.key("feedback_by_age"), 1, "0" * 32)
    dropped = built(await read_material(client, keys), tmp_path / "snapshot")["dropped"]
    assert [dropped[table]["unreadable"] for table in ("prompts", "answers", "feedback")] == [1, 1, 1]


async def test_an_existing_directory_is_refused_and_left_alone(client: Redis, keys: RunKeys, tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    with pytest.raises(DataError, match="exists already"):
        built(await read_material(client, keys), tmp_path / "snapshot")
    assert os.listdir(tmp_path) == ["snapshot"]


async def test_a_snapshot_that_fails_half_way_leaves_nothing(
    client: Redis, keys: RunKeys, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await give_all_kinds(client, keys, stores)
    material = await read_material(client, keys)

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("onlinerlhf.gateway.snapshot.build.write", fail)
    with pytest.raises(OSError, match="no space"):
        built(material, tmp_path / "snapshot")
    assert os.listdir(tmp_path) == []


async def test_an_empty_run_gives_an_empty_snapshot(client: Redis, keys: RunKeys, tmp_path: Path) -> None:
    manifest = built(await read_material(client, keys), tmp_path / "snapshot")
    assert manifest["newest_record_seconds"] is None
    assert all(entry["rows"] == 0 for entry in manifest["files"].values())


async def test_the_command_line_exports_and_counts(
    client: Redis, keys: RunKeys, stores: Stores, run_config: RunConfig, tmp_path: Path
) -> None:
    await give_all_kinds(client, keys, stores)
    where = ["--redis-url", run_config.redis_url.get_secret_value(), "--run", keys.run]
    out = tmp_path / "deep" / "snapshot"
    exported = await in_thread(["export", "--out", str(out), *where])
    assert "3 prompts of 3 users, 6 answers, 12 judgements, 6 comparisons" in exported
    stats = json.loads(await in_thread(["stats", "--json", *where]))
    assert stats["by_split"] == {"test": 1, "train": 2}
    assert stats["by_verdict"] == {"admitted": 2, "held_out": 1}
    assert stats["by_use_case"] == {"generation": 3}
    assert list(stats["by_tenant"].values()) == [3]
    assert {name: size["num_keys"] for name, size in stats["stores"].items() if name in ("answer", "feedback")} == {
        "answer": 6,
        "feedback": 12,
    }
    assert stats["stores"]["answer"]["num_bytes"] > 1000
    assert "generation 3" in await in_thread(["stats", *where])


async def in_thread(arguments: list[str]) -> str:
    """The command's output; it runs an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, data, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
