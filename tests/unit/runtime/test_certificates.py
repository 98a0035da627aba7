"""Certificate files: judged as a whole, exchanged as a whole, and named by path alone when they are of no use."""

import logging
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from authority import Authority, SecretMount
from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime.certificates import CertificateFiles


class Clock:
    """Time that tests move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def mount(tmp_path: Path, authority: Authority) -> SecretMount:
    mount = SecretMount(tmp_path / "tls")
    mount.renew(authority)
    return mount


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(mount: SecretMount, clock: Clock) -> CertificateFiles:
    return CertificateFiles(role="test", cert=mount.cert, key=mount.key, ca=mount.ca, clock=clock)


def _reloads(result: str) -> float:
    labels = {"role": "test", "result": result}
    return REGISTRY.get_sample_value("onlinerlhf_tls_reloads_total", labels) or 0.0


def test_a_swapped_secret_is_seen_a_second_later_and_unchanged_files_stay_the_same_object(
    files: CertificateFiles, mount: SecretMount, authority: Authority, clock: Clock
) -> None:
    first = files.current()
    clock.now += 1.0
    assert files.current() is first
    renewed = mount.renew(authority)
    clock.now += 0.9
    assert files.current() is first
    clock.now += 0.2
    second = files.current()
    assert (second.cert, second.key, second.ca) == (renewed, mount.key.read_bytes(), authority.pem)
    assert files.current() is second


@pytest.mark.parametrize("broken", ["half a pair", "half written", "gone"])
def test_what_is_of_no_use_leaves_the_old_ones_is_told_once_and_mends_itself(
    files: CertificateFiles,
    mount: SecretMount,
    authority: Authority,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    first, refused, loaded = files.current(), _reloads("refused"), _reloads("loaded")
    cert, key = authority.issue()
    if broken == "half a pair":
        mount.write(cert=cert, key=mount.key.read_bytes(), ca=authority.pem)
    elif broken == "half written":
        mount.write(cert=cert, key=key[:60], ca=authority.pem)
    else:
        mount.key.unlink()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += 2.0
            assert files.current() is first
    [record] = caplog.records
    assert record.message == "changed certificates are of no use: the old ones stay"
    assert str(mount.key) in record.__dict__["reason"]
    assert (_reloads("refused"), _reloads("loaded")) == (refused + 1, loaded)
    if broken == "gone":
        mount.key.symlink_to(Path("..data") / "tls.key")
    mount.write(cert=cert, key=key, ca=authority.pem)
    clock.now += 2.0
    assert (files.current().cert, files.current().key) == (cert, key)
    assert (_reloads("refused"), _reloads("loaded")) == (refused + 1, loaded + 1)


def test_at_start_each_fault_names_its_file_and_shows_nothing_of_it(
    tmp_path: Path, mount: SecretMount, authority: Authority
) -> None:
    other_key, junk, missing = (tmp_path / name for name in ("other.key", "junk.pem", "missing.pem"))
    other_key.write_bytes(authority.issue()[1])
    junk.write_text("hunter2")
    cert, key, ca = mount.cert, mount.key, mount.ca
    for given, message in [
        ((missing, key, ca), f"cannot read {missing}: No such file or directory"),
        ((cert, missing, ca), f"cannot read {missing}: No such file or directory"),
        ((cert, key, missing), f"cannot read {missing}: No such file or directory"),
        ((tmp_path, key, ca), f"cannot read {tmp_path}: Is a directory"),
        ((junk, key, ca), f"{junk} holds no PEM certificate"),
        ((cert, junk, ca), f"{junk} holds no PEM key without a password"),
        ((cert, key, junk), f"{junk} holds no PEM certificate"),
        ((cert, other_key, ca), f"{other_key} is not the key of the first certificate in {cert}"),
    ]:
        with pytest.raises(StartupError) as caught:
            CertificateFiles(role="test", cert=given[0], key=given[1], ca=given[2])
        assert str(caught.value) == message


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path, mount: SecretMount) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(mount.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    encryption = serialization.BestAvailableEncryption(b"hunter2")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(StartupError, match=r"locked\.key holds no PEM key without a password$"):
        CertificateFiles(role="test", cert=mount.cert, key=locked, ca=None)
