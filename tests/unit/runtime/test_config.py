"""Defaults < file < environment, and nothing unknown passes."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.runtime.certificates import ClientTls
from onlinerlhf.runtime.config import ServiceConfig, describe, load


class RoomConfig(ServiceConfig):
    model_dir: Path
    bound: int = Field(default=7, ge=1)
    cache_bytes: int | None = 1024
    sizes: tuple[int, ...] = (1, 2)
    key: SecretStr = SecretStr("")


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "platform.toml"
    path.write_text('[run]\nid = "r1"\n[gateway]\nmodel_dir = "/models/a"\nbound = 8\n[reward]\nelse = 1\n')
    return path


def test_the_file_beats_the_default_and_the_environment_beats_the_file(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = load("gateway", RoomConfig, path=toml)
    assert (run.id, config.model_dir, config.bound, config.drain_seconds) == ("r1", Path("/models/a"), 8, 20.0)
    monkeypatch.setenv("ONLINERLHF_RUN__ID", "r2")
    monkeypatch.setenv("ONLINERLHF_GATEWAY__BOUND", "9")
    monkeypatch.setenv("ONLINERLHF_GATEWAY__SIZES", "[3, 4]")
    run, config = load("gateway", RoomConfig, path=toml)
    assert (run.id, config.bound, config.sizes) == ("r2", 9, (3, 4))


def test_the_environment_may_name_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLINERLHF_CONFIG", str(toml))
    assert load("gateway", RoomConfig)[1].bound == 8


def test_none_switches_off_what_may_be_absent(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLINERLHF_GATEWAY__CACHE_BYTES", "none")
    assert load("gateway", RoomConfig, path=toml)[1].cache_bytes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[gateway]\nmodel_dir = "a"\nbuond = 1', r"^\[gateway\] buond: unknown key \(.*platform.toml\)$"),
        ('[gateway]\nmodel_dir = "a"\nbound = 0', r"^\[gateway\] bound: .* greater than or equal to 1 \("),
        ("[gateway]\nbound = 1", r"^\[gateway\] model_dir: is required \("),
        ("[gatway]\nbound = 1", r"^unknown section \[gatway\] in "),
        ("gateway = 1", r"^gateway in .* is not a section$"),
        ("[gateway\n", r"platform.toml is not TOML"),
    ],
)
def test_an_error_names_section_key_and_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "platform.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load("gateway", RoomConfig, path=path)


def test_an_unknown_variable_is_named(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLINERLHF_GATEWAY__BUOND", "1")
    with pytest.raises(
        ConfigError, match=r"^\[gateway\] buond: unknown key \(environment variable ONLINERLHF_GATEWAY__BUOND\)$"
    ):
        load("gateway", RoomConfig, path=toml)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read the config file .*absent.toml: No such file"):
        load("gateway", RoomConfig, path=tmp_path / "absent.toml")


def test_secrets_are_masked_in_descriptions_and_absent_from_errors(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLINERLHF_RUN__REDIS_URL", "redis://:hunter2@127.0.0.1/0")
    monkeypatch.setenv("ONLINERLHF_GATEWAY__KEY", "hunter3")
    described = str(describe(*load("gateway", RoomConfig, path=toml)))
    assert "hunter" not in described and "/models/a" in described
    monkeypatch.setenv("ONLINERLHF_GATEWAY__BOUND", "hunter4")
    with pytest.raises(ConfigError) as caught:
        load("gateway", RoomConfig, path=toml)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("tls_cert = 'a'", "tls_cert and tls_key go together: one of them is not set"),
        ("tls_key = 'a'", "tls_cert and tls_key go together: one of them is not set"),
        ("tls_ca = 'a'", "tls_ca without tls_cert and tls_key would leave this room's own server without TLS"),
        (
            "tls_cert = 'a'\ntls_key = 'b'\nrequire_client_certificate = true",
            "require_client_certificate needs tls_ca to verify certificates with",
        ),
    ],
)
def test_tls_by_halves_is_refused(tmp_path: Path, settings: str, message: str) -> None:
    path = tmp_path / "platform.toml"
    path.write_text(f"[reward]\n{settings}")
    with pytest.raises(ConfigError, match=message):
        load("reward", ServiceConfig, path=path)


def test_certificates_are_asked_for_where_there_is_an_authority_unless_it_is_said_otherwise() -> None:
    def config(**settings: str) -> ServiceConfig:
        return ServiceConfig.model_validate({"tls_cert": "c", "tls_key": "k", **settings})

    assert not ServiceConfig().needs_client_certificates and ServiceConfig().client_tls() is None
    assert not config().needs_client_certificates
    assert config(tls_ca="a").needs_client_certificates
    assert not config(tls_ca="a", require_client_certificate="false").needs_client_certificates
    assert config(tls_ca="a").client_tls() == ClientTls(cert=Path("c"), key=Path("k"), ca=Path("a"))


def test_users_of_the_gateway_need_no_certificates_unless_it_is_said() -> None:
    settings = {"model_dir": "m", "rollout_target": "r", "tls_cert": "c", "tls_key": "k", "tls_ca": "a"}
    assert not GatewayConfig.model_validate(settings).needs_client_certificates
    settings["require_client_certificate"] = "true"
    assert GatewayConfig.model_validate(settings).needs_client_certificates


def test_calls_outlive_their_connection_for_as_long_as_a_call_may_take_unless_it_is_said() -> None:
    assert ServiceConfig(max_connection_age_seconds=30, max_call_seconds=90).connection_grace_seconds == 90
    assert ServiceConfig(max_connection_age_grace_seconds=5).connection_grace_seconds == 5
