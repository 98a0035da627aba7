"""What pods are told is what the code understands: files, variables, commands."""

import importlib.util
import os
import tomllib
from pathlib import PurePosixPath
from unittest.mock import patch

import click
import pytest

from deploy.dockerfile import entry_point
from deploy.helm import SETS, changed, render, rendered
from deploy.objects import Object, Pods
from deploy.rooms import ROOMS, environment, image_of, mounted_text, settings
from onlinerlhf.cli import cli
from onlinerlhf.core.errors import ConfigError
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.runtime.config import SECTIONS
from onlinerlhf.scaler.config import ScalerConfig

OF_ROOMS = [pytest.param(name, pods, id=f"{name}-{pods}") for name in SETS for pods in rendered(name).pods(*ROOMS)]
PYTHON = "/opt/venv/bin/python"
COMMAND = "/opt/venv/bin/onlinerlhf"


def words(container: Object) -> list[str]:
    """What runs: the image's entry point, where the pod does not say otherwise."""
    command = container.get("command") or entry_point(image_of(container))
    return [*command, *container.get("args", [])]


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_a_room_reads_its_file_and_its_environment_without_a_complaint(name: str, pods: Pods) -> None:
    run, config = settings(rendered(name), pods)
    assert isinstance(config, ROOMS[pods.component])
    assert run.redis_url.get_secret_value().startswith(("redis://:", "rediss://:"))
    assert config.health_listen is not None


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_every_variable_of_ours_names_a_section_and_a_key_of_the_code(name: str, pods: Pods) -> None:
    fields = {"run": ("id", "redis_url", "log_level"), pods.component: tuple(ROOMS[pods.component].model_fields)}
    for variable in environment(rendered(name), pods):
        if variable.startswith("ONLINERLHF_") and variable != "ONLINERLHF_CONFIG":
            section, _, key = variable.removeprefix("ONLINERLHF_").lower().partition("__")
            assert section in SECTIONS
            assert key in fields[section], variable


@pytest.mark.parametrize("name", SETS)
def test_the_file_has_a_section_for_each_room_that_runs_and_no_secret(name: str) -> None:
    for pods in rendered(name).pods(*ROOMS):
        sections = tomllib.loads(mounted_text(rendered(name), pods, "/etc/onlinerlhf/config.toml"))
        assert {pods.component, "run"} <= set(sections) <= set(SECTIONS)
        assert "redis_url" not in sections["run"] and "hash_key" not in sections["gateway"]


@pytest.mark.parametrize("name", SETS)
def test_all_rooms_of_a_release_are_one_run(name: str) -> None:
    runs = {settings(rendered(name), pods)[0].id for pods in rendered(name).pods(*ROOMS)}
    assert len(runs) == 1


@pytest.mark.parametrize("name", SETS)
def test_the_scaler_and_the_workers_go_by_one_bound_and_one_port(name: str) -> None:
    rendering = rendered(name)
    workers = [settings(rendering, pods)[1] for pods in rendering.pods("rollout")]
    for pods in rendering.pods("scaler"):
        _, scaler = settings(rendering, pods)
        assert isinstance(scaler, ScalerConfig)
        for worker in workers:
            assert isinstance(worker, RolloutConfig)
            assert worker.max_samples_ahead == scaler.max_samples_ahead
            assert int(worker.listen.rpartition(":")[2]) == scaler.rollout_port


@pytest.mark.parametrize("name", SETS)
def test_a_workers_consumer_is_called_like_its_pod(name: str) -> None:
    for pods in rendered(name).pods("rollout", "reward"):
        [variable] = [each for each in pods.main["env"] if each["name"].endswith("__WORKER_ID")]
        assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


@pytest.mark.parametrize("name", SETS)
def test_gateways_and_workers_end_old_connections_so_that_new_pods_are_seen(name: str) -> None:
    for pods in rendered(name).pods("gateway", "rollout"):
        _, config = settings(rendered(name), pods)
        assert config.max_connection_age_seconds is not None
        assert config.max_connection_age_seconds <= 300


@pytest.mark.parametrize("name", SETS)
def test_pods_run_modules_and_commands_that_exist_with_options_that_they_take(name: str) -> None:
    for pods in rendered(name).pods(*ROOMS, "models"):
        for container in pods.containers:
            run = words(container)
            if run[0] == COMMAND:
                context = cli.make_context("onlinerlhf", run[1:], resilient_parsing=False)
                assert_takes(context, run[1:])
                continue
            assert run[:2] == [PYTHON, "-m"], run
            module = run[2]
            package = importlib.util.find_spec(module)
            assert package is not None, module
            if package.submodule_search_locations is not None:
                assert importlib.util.find_spec(f"{module}.__main__") is not None


def assert_takes(context: click.Context, arguments: list[str]) -> None:
    """The group has the command, and the command takes the rest."""
    assert isinstance(context.command, click.Group)
    command = context.command.get_command(context, arguments[0])
    assert command is not None, arguments[0]
    command.make_context(arguments[0], arguments[1:], parent=context)


@pytest.mark.parametrize("name", SETS)
def test_a_rooms_command_is_its_images_entry_point(name: str) -> None:
    for pods in rendered(name).pods(*ROOMS):
        assert words(pods.main) == entry_point(pods.component)
        assert image_of(pods.main) == pods.component


@pytest.mark.parametrize("name", SETS)
def test_models_are_made_where_the_rooms_look_for_them(name: str) -> None:
    rendering = rendered(name)
    for job in rendering.pods("models"):
        arguments = words(job.main)
        out = PurePosixPath(arguments[arguments.index("--out") + 1])
        for pods in rendering.pods("gateway", "rollout"):
            _, config = settings(rendering, pods)
            assert isinstance(config, GatewayConfig | RolloutConfig)
            assert str(config.model_dir) == str(out / "sft")


def test_settings_of_every_toml_type_arrive_as_they_were_given() -> None:
    given = {
        "gateway": {
            "settings": {
                "max_prompt_bytes": 1_000_000,
                "answer_seconds": 1.5,
                "notice_versions": ["1", "2"],
                "pii_policy": {"playground": "redact", "production": "drop"},
                "user_limits": {"requests_per_minute": 7},
                "model_name": 'a-"quoted"-name'.replace('"', ""),
            }
        },
        "rollout": {
            "pools": {"default": {"settings": {"max_concurrent_samples": 8, "top_p": 0.9, "kv_cache_bytes": "none"}}}
        },
    }
    rendering = render(changed("minimal", given))
    [gateway], [worker] = rendering.pods("gateway"), rendering.pods("rollout")
    _, config = settings(rendering, gateway)
    assert isinstance(config, GatewayConfig)
    assert (config.max_prompt_bytes, config.answer_seconds, config.notice_versions) == (1_000_000, 1.5, ("1", "2"))
    assert config.user_limits.requests_per_minute == 7
    assert config.pii_policy["playground"] == "redact"  # type: ignore[index]
    _, config = settings(rendering, worker)
    assert isinstance(config, RolloutConfig)
    assert (config.max_concurrent_samples, config.top_p, config.kv_cache_bytes) == (8, 0.9, None)


def test_a_setting_that_the_code_does_not_know_is_found_here_and_named_by_the_pod() -> None:
    rendering = render(changed("minimal", {"reward": {"settings": {"batch_tokns": 4096}}}))
    [pods] = rendering.pods("reward")
    with patch.dict(os.environ), pytest.raises(ConfigError, match="batch_tokns: unknown key"):
        settings(rendering, pods)
