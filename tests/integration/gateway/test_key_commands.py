"""`onlinerlhf keys`, `onlinerlhf quota`, and the keys of a platform on this machine, on a real Redis."""

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from onlinerlhf.cli import OneLineErrors
from onlinerlhf.cli_keys import keys as keys_group
from onlinerlhf.cli_keys import quota as quota_group
from onlinerlhf.core.errors import ConfigError, NotFound
from onlinerlhf.gateway.access.callers import ApiKey, Caller, KeyClass, Limits, Scope
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.access.key_format import parse
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.gateway.access.limit_defaults import LimitDefaults
from onlinerlhf.gateway.access.limits import Meter
from onlinerlhf.local import credentials, endpoints
from onlinerlhf.local.targets import Target, ask
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys

T = TypeVar("T")
Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ONLINERLHF_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def target(run_config: RunConfig) -> Target:
    return Target(run_id=run_config.id, redis_url=run_config.redis_url.get_secret_value())


@pytest.fixture
def invoke(target: Target) -> Invoke:
    """The command line on the test's run."""
    cli = OneLineErrors("onlinerlhf", commands={"keys": keys_group, "quota": quota_group})

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--redis-url", target.redis_url, "--run", target.run_id])

    return run


def with_store(target: Target, job: Callable[[KeyStore], Awaitable[T]]) -> T:
    async def run(redis: Redis, keys: RunKeys) -> T:
        return await job(KeyStore(redis, keys))

    return ask(target, run)


def test_a_key_is_printed_once_and_listed_without_its_secret(invoke: Invoke) -> None:
    made = invoke("keys", "create", "--name", "ci", "--class", "playground", "--organisation", "acme")
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    key = parse(text)
    assert key is not None
    assert "shown this once" in made.stderr
    assert text not in made.stderr
    listed = invoke("keys", "list")
    assert listed.exit_code == 0
    header, row = listed.stdout.splitlines()
    assert header.split()[:3] == ["KEY", "ID", "NAME"]
    assert row.split()[:5] == [key.key_id, "ci", "playground", "acme", "feedback,generate"]
    assert text[21:53] not in listed.output


def test_json_is_for_programs(invoke: Invoke) -> None:
    made = invoke(
        "keys",
        "create",
        "--name",
        "ci",
        "--class",
        "production",
        "--scope",
        "admin",
        "--max-concurrent",
        "3",
        "--tokens-per-day",
        "9",
        "--json",
    )
    record = json.loads(made.stdout)
    assert parse(record["key"]) is not None
    assert (record["scopes"], record["limits"]["max_concurrent"]) == (["admin"], 3)
    assert (record["limits"]["tokens_per_day"], record["limits"]["requests_per_day"]) == (9, None)
    listed = json.loads(invoke("keys", "list", "--json").stdout)
    assert [each["key_id"] for each in listed] == [record["key_id"]]
    assert "key" not in listed[0] and "sha256" not in listed[0]


def test_a_revoked_key_is_shown_as_such(invoke: Invoke, target: Target) -> None:
    key, _ = with_store(target, lambda store: store.create("ci", KeyClass.PLAYGROUND, "", frozenset({Scope.GENERATE})))
    revoked = invoke("keys", "revoke", key.key_id)
    assert revoked.exit_code == 0
    assert f"key {key.key_id} (ci) is revoked" in revoked.stdout
    assert json.loads(invoke("keys", "list", "--json").stdout)[0]["revoked_at_seconds"] is not None


def test_errors_are_one_line(invoke: Invoke) -> None:
    assert invoke("keys", "list").stdout.endswith("has no keys; `onlinerlhf keys create` makes one\n")
    for result in (
        invoke("keys", "revoke", "nobody"),
        invoke("quota", "set", "nobody", "--max-concurrent", "3"),
        invoke("quota", "show", "--key", "nobody"),
        invoke("quota", "show", "--user", "ada"),
        invoke("keys", "create", "--name", "a\nb", "--class", "playground"),
    ):
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1


def test_a_redis_that_is_not_there_is_one_line_without_its_password(target: Target) -> None:
    cli = OneLineErrors("onlinerlhf", commands={"keys": keys_group})
    result = CliRunner().invoke(cli, ["keys", "list", "--redis-url", "redis://:hunter2@127.0.0.1:1/0"])
    assert result.exit_code == 1
    assert result.stderr == "Error: Redis cannot be reached; nothing is known to have changed\n"


def test_without_a_platform_it_says_so(tmp_path: Path) -> None:
    cli = OneLineErrors("onlinerlhf", commands={"keys": keys_group})
    result = CliRunner().invoke(cli, ["keys", "list", "--home", str(tmp_path)])
    assert result.exit_code == 1
    assert "no platform is up" in result.stderr


def test_quota_shows_what_is_used_and_what_is_left(invoke: Invoke, target: Target) -> None:
    async def use(redis: Redis, keys: RunKeys) -> ApiKey:
        key, _ = await KeyStore(redis, keys).create("ci", KeyClass.PRODUCTION, "acme", frozenset({Scope.GENERATE}))
        defaults = LimitDefaults(
            classes=dict.fromkeys(KeyClass, Limits(requests_per_minute=600, tokens_per_minute=60_000)),
            user=Limits(tokens_per_minute=10_000, max_concurrent=4, tokens_per_day=20_000),
            organisation=Limits(requests_per_minute=1000, requests_per_day=5000),
        )
        meter = Meter(redis, keys, defaults)
        digests: Digests = await HashKey(redis, keys).digests()
        owner = digests.owner("acme", "ada")
        caller = Caller(key=key, owner=owner, tenant=digests.tenant("acme", owner))
        await meter.reserve(caller, num_tokens=5_000, request_id="r")
        await meter._announce()
        return key

    key = ask(target, use)
    shown = invoke("quota", "show")
    assert shown.exit_code == 0, shown.output
    assert f"key    {key.key_id} ci  1 of 600 used, 599 left" in shown.stdout
    assert " tokens" not in shown.stdout
    rows = json.loads(invoke("quota", "show", "--user", "ada", "--organisation", "acme", "--json").stdout)
    user, organisation = rows
    assert (user["dimension"], user["num_concurrent"], user["left"]["max_concurrent"]) == ("user", 1, 3)
    assert 4_900 < user["tokens_used"] <= 5_000
    assert user["left"]["requests_per_minute"] is None
    assert (user["daily_tokens_used"], user["left"]["tokens_per_day"]) == (5_000, 15_000)
    assert (organisation["daily_requests_used"], organisation["left"]["requests_per_day"]) == (1, 4_999)
    assert (organisation["requests_used"], organisation["left"]["requests_per_minute"]) == (1, 999)
    assert json.loads(invoke("quota", "show", "--user", "bob", "--json").stdout)[0]["tokens_used"] == 0


def test_quota_set_changes_what_is_given_and_keeps_the_rest(invoke: Invoke, target: Target) -> None:
    async def make(store: KeyStore) -> str:
        limits = Limits(requests_per_minute=5, max_concurrent=2)
        key, _ = await store.create("ci", KeyClass.PLAYGROUND, "", frozenset({Scope.GENERATE}), limits)
        return key.key_id

    key_id = with_store(target, make)
    changed = invoke("quota", "set", key_id, "--tokens-per-minute", "700", "--max-concurrent", "3")
    assert changed.exit_code == 0
    assert "5 requests/min, 700 tokens/min, 3 at a time" in changed.stdout
    changed = invoke("quota", "set", key_id, "--requests-per-day", "900", "--tokens-per-day", "80000")
    assert "700 tokens/min, 900 requests/day, 80,000 tokens/day, 3 at a time" in changed.stdout
    expected = Limits(
        requests_per_minute=5, tokens_per_minute=700, max_concurrent=3, requests_per_day=900, tokens_per_day=80_000
    )
    assert with_store(target, lambda store: store.get(key_id)).limits == expected
    assert invoke("quota", "set", key_id, "--class-defaults").exit_code == 0
    assert with_store(target, lambda store: store.get(key_id)).limits is None
    assert invoke("quota", "set", key_id).exit_code == 2


def test_a_platform_gets_two_keys_in_a_file_of_its_owners(target: Target, tmp_path: Path) -> None:
    made = asyncio.run(credentials.ensure(target.redis_url, target.run_id, tmp_path))
    path = tmp_path / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.read(tmp_path) == made
    assert made.client_key not in repr(made) and made.admin_key not in repr(made)
    found = {key.name: key for key in with_store(target, lambda store: store.list())}
    assert found["local"].scopes == {Scope.GENERATE, Scope.FEEDBACK}
    assert found["local"].key_class is KeyClass.PLAYGROUND
    assert found["local admin"].scopes == {Scope.ADMIN}


def test_the_keys_stay_the_same_over_restarts_and_over_a_fresh_redis(target: Target, tmp_path: Path) -> None:
    made = asyncio.run(credentials.ensure(target.redis_url, target.run_id, tmp_path))
    assert asyncio.run(credentials.ensure(target.redis_url, target.run_id, tmp_path)) == made
    assert len(with_store(target, lambda store: store.list())) == 2
    fresh = Target(run_id=f"{target.run_id}-fresh", redis_url=target.redis_url)
    assert asyncio.run(credentials.ensure(fresh.redis_url, fresh.run_id, tmp_path)) == made
    assert len(with_store(fresh, lambda store: store.list())) == 2


def test_a_revoked_local_key_is_replaced_and_a_readable_file_is_closed(target: Target, tmp_path: Path) -> None:
    made = asyncio.run(credentials.ensure(target.redis_url, target.run_id, tmp_path))
    (tmp_path / "credentials.json").chmod(0o644)
    key = parse(made.client_key)
    assert key is not None
    with_store(target, lambda store: store.revoke(key.key_id))
    again = asyncio.run(credentials.ensure(target.redis_url, target.run_id, tmp_path))
    assert again.client_key != made.client_key
    assert again.admin_key == made.admin_key
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


def test_clients_find_their_key_in_the_environment_or_beside_the_platform_that_is_up(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "runs" / "one"
    made = asyncio.run(credentials.ensure(target.redis_url, target.run_id, run_dir))
    with pytest.raises(NotFound, match="no platform is up"):
        credentials.client_key(tmp_path, None)
    endpoints.Endpoints(
        run_id=target.run_id,
        run_dir=str(run_dir),
        redis_url=target.redis_url,
        http="",
        supervisor_pid=os.getpid(),
        processes=(),
    ).write()
    assert credentials.client_key(tmp_path, None) == made.client_key
    assert credentials.admin_key(tmp_path, run_dir) == made.admin_key
    cli = OneLineErrors("onlinerlhf", commands={"keys": keys_group})
    assert made.client_key[9:21] in CliRunner().invoke(cli, ["keys", "list", "--home", str(tmp_path)]).stdout
    monkeypatch.setenv("ONLINERLHF_API_KEY", "mine")
    monkeypatch.setenv("ONLINERLHF_ADMIN_KEY", "also mine")
    assert credentials.client_key(tmp_path, None) == "mine"
    assert credentials.admin_key(tmp_path, None) == "also mine"


def test_damaged_and_missing_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="`onlinerlhf up` writes it"):
        credentials.read(tmp_path)
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        credentials.read(tmp_path)
