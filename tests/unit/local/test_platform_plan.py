"""The plan: ports, settings, environment, order."""

import os
import tomllib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from onlinerlhf.core.errors import ConfigError, NotFound, StartupError
from onlinerlhf.gateway.config import LimitsConfig
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.local import endpoints as endpoint_files
from onlinerlhf.local import running
from onlinerlhf.local.endpoints import Endpoints, ProcessEntry
from onlinerlhf.local.platform import (
    PlatformSpec,
    ProcessPlan,
    plan,
    shared_environment,
    socket_environment,
)
from onlinerlhf.local.ports import free_ports
from onlinerlhf.local.sections import OWNED, dump_toml, merge, parse_setting, read_config
from onlinerlhf.runtime import config as configs


@pytest.fixture
def spec(tmp_path: Path) -> PlatformSpec:
    for name in ("sft", "reward"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    return PlatformSpec(run_dir=tmp_path / "run", policy_dir=tmp_path / "sft", reward_dir=tmp_path / "reward")


def test_the_learner_starts_after_redis_and_before_all_that_need_a_version(spec: PlatformSpec) -> None:
    steps = running.start_steps(plan(replace(spec, rollout_workers=2)))
    names = [[process.name for process in step] for step in steps]
    assert names == [["redis"], ["learner"], ["rollout-0", "rollout-1", "reward", "gateway"]]


def test_what_takes_work_in_drains_first_and_what_stores_it_last(spec: PlatformSpec) -> None:
    order = plan(replace(spec, rollout_workers=2)).drain_order
    workers = tuple(f"rollout-{index}" for index in range(8))  # those that may be added later, too
    assert order == (("gateway",), workers, ("reward",), ("learner",), ("redis",))


def test_the_gateway_knows_every_worker_and_the_workers_the_learner(spec: PlatformSpec) -> None:
    planned = plan(replace(spec, rollout_workers=1, max_rollout_workers=2))
    address = {process.name: process.address for process in (*planned.processes, *planned.workers)}
    assert planned.sections["gateway"]["rollout_target"] == f"ipv4:{address['rollout-0']},{address['rollout-1']}"
    assert planned.sections["rollout"]["learner_target"] == address["learner"]


def test_on_ones_own_machine_users_have_wide_limits_unless_told_otherwise(spec: PlatformSpec) -> None:
    planned = plan(replace(spec, overrides=parse_setting("gateway.organisation_limits={requests_per_day = 5}")))
    gateway = tomllib.loads(dump_toml(planned.sections))["gateway"]
    assert LimitsConfig.model_validate(gateway["user_limits"]).requests_per_minute == 1_000_000
    assert LimitsConfig.model_validate(gateway["organisation_limits"]) == LimitsConfig(requests_per_day=5)


def test_workers_have_their_own_id_and_staging_directory(spec: PlatformSpec) -> None:
    planned = plan(replace(spec, rollout_workers=2))
    environment = {process.name: process.environment for process in planned.processes}
    assert environment["rollout-1"]["ONLINERLHF_ROLLOUT__WORKER_ID"] == "rollout-1"
    assert environment["rollout-1"]["ONLINERLHF_ROLLOUT__STAGING_DIR"].endswith("staging/rollout-1")


def test_everything_listens_on_loopback(spec: PlatformSpec) -> None:
    planned = plan(spec)
    addresses = [planned.http, *(process.address for process in planned.processes)]
    assert {address.split(":")[0] for address in addresses} == {"127.0.0.1"}
    assert len(set(addresses)) == len(addresses)


def test_the_gateways_two_ports_are_free_ones_or_those_asked_for(spec: PlatformSpec) -> None:
    planned = plan(replace(spec, gateway_port=50_051, http_port=8_080))
    gateway = next(process for process in planned.processes if process.name == "gateway")
    assert (gateway.address, planned.http) == ("127.0.0.1:50051", "127.0.0.1:8080")
    assert gateway.environment["ONLINERLHF_GATEWAY__HTTP_LISTEN"] == "127.0.0.1:8080"


def test_somebody_elses_redis_is_not_started(spec: PlatformSpec) -> None:
    planned = plan(replace(spec, redis_url="redis://:secret@127.0.0.1:7000/3"))
    assert "redis" not in [process.name for process in planned.processes]
    assert "secret" not in dump_toml(planned.sections)


def test_the_callers_environment_goes_before_the_plans_thread_count(spec: PlatformSpec) -> None:
    environment = shared_environment({"OMP_NUM_THREADS": "3", "HF_HUB_OFFLINE": "0"}, spec, "redis://127.0.0.1:1/0")
    assert (environment["OMP_NUM_THREADS"], environment["HF_HUB_OFFLINE"]) == ("3", "1")


def test_ports_are_free_and_never_given_twice() -> None:
    ports = list(islice(free_ports(), 50))
    assert len(set(ports)) == 50


def test_a_directory_without_a_model_is_refused_with_its_path(spec: PlatformSpec, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward model directory .*nowhere has no config.json"):
        plan(replace(spec, reward_dir=tmp_path / "nowhere"))


def test_a_setting_on_the_command_line_is_read_as_toml_or_else_as_text() -> None:
    assert parse_setting("learner.batch_size=64") == {"learner": {"batch_size": 64}}
    assert parse_setting("rollout.prefix_caching=false") == {"rollout": {"prefix_caching": False}}
    assert parse_setting("rollout.dtype=float32") == {"rollout": {"dtype": "float32"}}


@pytest.mark.parametrize("text", ["batch_size=64", "learner.batch_size", "trainer.batch_size=64", ".x=1"])
def test_a_setting_that_names_no_services_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_setting(text)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("run.id=mine", "--run"),
        ("run.redis_url=redis://127.0.0.1:1/0", "--redis-url"),
        ("gateway.listen=127.0.0.1:50051", "--gateway-port"),
        ("gateway.http_listen=127.0.0.1:8080", "--http-port"),
        ("learner.listen=127.0.0.1:50052", "chosen by `up`"),
        ("rollout.worker_id=w", "--rollout-workers"),
        ("rollout.staging_dir=/s", "--home"),
    ],
)
def test_a_setting_that_up_owns_is_refused_and_the_option_named(tmp_path: Path, text: str, instead: str) -> None:
    name = text.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{name} is set by `onlinerlhf up` itself: .*{instead}"):
        parse_setting(text)
    section, _, key = name.partition(".")
    path = tmp_path / "my.toml"
    path.write_text(dump_toml({section: {key: "x"}}))
    with pytest.raises(ConfigError, match=rf"my.toml: {name} is set"):
        read_config(path)


def test_the_plan_sets_in_the_environment_only_what_no_file_may(spec: PlatformSpec) -> None:
    found = {name for process in plan(spec).processes for name in process.environment} - set(os.environ)
    owned = {f"ONLINERLHF_{name.replace('.', '__').upper()}" for name in OWNED} - set(os.environ)
    assert {name for name in found if name.startswith("ONLINERLHF_") and "__" in name} == owned


def test_sockets_of_the_workers_go_with_the_run(spec: PlatformSpec) -> None:
    planned = plan(spec)
    environment = {process.name: process.environment for process in planned.processes}
    assert environment["rollout-0"]["VLLM_RPC_BASE_PATH"] == str(planned.socket_dir)
    assert "VLLM_RPC_BASE_PATH" not in environment["learner"]
    assert not planned.socket_dir.exists()


def test_sockets_stay_where_vllm_puts_them_when_their_path_would_be_too_long() -> None:
    assert socket_environment(Path("/" + "x" * 69)) == {"VLLM_RPC_BASE_PATH": "/" + "x" * 69}
    assert socket_environment(Path("/" + "x" * 70)) == {}


async def test_a_platform_that_cannot_start_leaves_no_socket_directory(spec: PlatformSpec) -> None:
    broken = ProcessPlan(name="redis", address="", command=("/nowhere/redis",), environment={}, drain_seconds=1.0)
    planned = replace(plan(spec), processes=(broken,))
    with pytest.raises(FileNotFoundError):
        async with running.running(planned, ready_timeout_seconds=5.0):
            pass
    assert not planned.socket_dir.exists()


def test_a_file_with_a_section_nobody_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[trainer]\nbatch_size = 64\n")
    with pytest.raises(ConfigError, match=r"\[trainer\] is not one of"):
        read_config(path)


def test_the_users_settings_win_over_the_plans_own() -> None:
    assert merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}, "b": {"z": 4}}) == {"a": {"x": 1, "y": 3}, "b": {"z": 4}}


def test_generated_toml_reads_back(tmp_path: Path) -> None:
    text = dump_toml({"a": {"path": tmp_path, "on": True, "rate": 1e-4, "names": ["x", 'y "z"'], "n": 3}, "b": {}})
    expected = {"path": str(tmp_path), "on": True, "rate": 1e-4, "names": ["x", 'y "z"'], "n": 3}
    assert tomllib.loads(text) == {"a": expected, "b": {}}


def endpoints(run_dir: Path, *, pid: int) -> Endpoints:
    gateway = ProcessEntry(name="gateway", address="127.0.0.1:9", pid=7, restarts=0, state="ready")
    return Endpoints(
        run_id=run_dir.name,
        run_dir=str(run_dir),
        redis_url="redis://",
        supervisor_pid=pid,
        http="127.0.0.1:8",
        processes=(gateway,),
    )


def test_endpoints_read_back_and_only_their_owner_can(tmp_path: Path) -> None:
    written = endpoints(tmp_path, pid=1)
    written.write()
    assert endpoint_files.read(tmp_path) == written
    assert (tmp_path / "endpoints.json").stat().st_mode & 0o777 == 0o600


def test_the_newest_run_that_is_up_is_found(tmp_path: Path) -> None:
    for name, pid in (("up", 1), ("gone", 2**22 + 5)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        endpoints(tmp_path / "runs" / name, pid=pid).write()
    assert endpoint_files.find(tmp_path).run_id == "up"


def test_a_run_that_ended_is_named_as_such(tmp_path: Path) -> None:
    endpoints(tmp_path, pid=2**22 + 5).write()
    with pytest.raises(NotFound, match="is not running any more"):
        endpoint_files.find(tmp_path, tmp_path)


def test_no_run_at_all_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="`onlinerlhf up` starts one"):
        endpoint_files.find(tmp_path)


def test_a_run_that_is_up_is_not_started_twice(tmp_path: Path) -> None:
    endpoints(tmp_path, pid=1).write()
    with pytest.raises(StartupError, match="already up"):
        running.refuse_second_start(tmp_path)


def test_a_run_without_a_critic_is_planned_from_two_settings(spec: PlatformSpec, tmp_path: Path) -> None:
    overrides = merge(parse_setting("learner.advantage_estimator=grpo"), parse_setting("rollout.num_responses=4"))
    planned = plan(replace(spec, overrides=overrides))
    path = tmp_path / "platform.toml"
    path.write_text(dump_toml(planned.sections))
    _, learner = configs.load("learner", LearnerConfig, path=path)
    assert (learner.advantage_estimator, learner.has_critic) == ("grpo", False)
    # (max_staleness 4 - 1) batches of 512 responses, 4 a sample.
    assert planned.sections["rollout"]["max_samples_ahead"] == 3 * 512 // 4
    with pytest.raises(ConfigError, match="grpo compares a prompt's responses: set rollout"):
        plan(replace(spec, overrides=parse_setting("learner.advantage_estimator=grpo")))


def test_a_room_is_killed_only_well_after_its_own_drain_time(
    spec: PlatformSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLINERLHF_LEARNER__DRAIN_SECONDS", "90")
    planned = plan(replace(spec, overrides=parse_setting("rollout.drain_seconds=60")))
    seconds = {process.name: process.drain_seconds for process in planned.processes}
    assert seconds == {"redis": 15.0, "learner": 100.0, "rollout-0": 70.0, "reward": 30.0, "gateway": 30.0}
    assert planned.workers[7].drain_seconds == 70.0
