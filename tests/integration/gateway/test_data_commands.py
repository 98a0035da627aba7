"""`onlinerlhf data erase|verify|user` against a data service on loopback."""

import json
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from authority import Authority
from onlinerlhf.cli_data import data
from onlinerlhf.core.errors import Unavailable
from onlinerlhf.v1 import data_pb2, data_pb2_grpc

KEY = "orl_test_admin"


class FakeData(data_pb2_grpc.DataServiceServicer):
    """Keeps what it was asked; one user is never clean."""

    def __init__(self) -> None:
        self.address = ""
        self.erased: list[tuple[str, str]] = []

    def EraseUser(self, request: data_pb2.EraseUserRequest, context: Any) -> data_pb2.EraseUserResponse:
        self._allow(context)
        self.erased.append((request.organisation, request.user_id))
        receipt = data_pb2.ErasureReceipt(
            receipt_id="r1", erased_at_seconds=1.5, num_removed={"pool": 2}, policy_versions=[3, 5]
        )
        return data_pb2.EraseUserResponse(receipt=receipt)

    def VerifyErasure(self, request: data_pb2.VerifyErasureRequest, context: Any) -> data_pb2.VerifyErasureResponse:
        self._allow(context)
        if request.user_id == "grace":
            return data_pb2.VerifyErasureResponse(clean=False, num_left={"answers": 1}, num_keys_scanned=9)
        return data_pb2.VerifyErasureResponse(clean=True, num_keys_scanned=9)

    def ExportUser(self, request: data_pb2.ExportUserRequest, context: Any) -> Iterator[data_pb2.ExportUserResponse]:
        self._allow(context)
        yield data_pb2.ExportUserResponse(kind="withdrawal", json='{"state": "none"}')
        yield data_pb2.ExportUserResponse(kind="prompt", json='{"text": "柠檬"}')

    def _allow(self, context: Any) -> None:
        if ("authorization", f"Bearer {KEY}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key")


@contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Iterator[FakeData]:
    fake = FakeData()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    data_pb2_grpc.add_DataServiceServicer_to_server(fake, server)
    if credentials is None:
        fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        fake.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    yield fake
    server.stop(None).wait()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeData]:
    """Listens on a port of its own; its key is in the environment."""
    monkeypatch.setenv("ONLINERLHF_ADMIN_KEY", KEY)
    with serving() as fake:
        yield fake


def run(service: FakeData, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(data, [*arguments, "--gateway", service.address], input=answer)


def test_an_erasure_prints_its_receipt(service: FakeData) -> None:
    result = run(service, "erase", "--user", "ada", "--organisation", "acme", "--yes")
    assert json.loads(result.stdout) == {
        "receipt_id": "r1",
        "erased_at_seconds": 1.5,
        "num_removed": {"pool": 2},
        "num_samples_dropped": 0,
        "policy_versions": [3, 5],
        "num_samples_in_training": 0,
    }
    assert service.erased == [("acme", "ada")]


def test_a_gateway_that_speaks_tls_is_asked_under_the_name_in_its_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONLINERLHF_ADMIN_KEY", KEY)
    authority = Authority()
    cert, key = authority.issue("gateway.example")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    with serving(grpc.ssl_server_credentials([(key, cert)])) as fake:
        trust = ("--ca", str(tmp_path / "ca.crt"))
        result = run(fake, "erase", "--user", "ada", "--yes", *trust, "--server-name", "gateway.example")
        assert (result.exit_code, fake.erased) == (0, [("", "ada")])
        # Under another name it is not who the certificate says, and in plain text it answers nobody.
        for other in ((*trust, "--server-name", "other.example"), ()):
            result = run(fake, "erase", "--user", "grace", "--yes", *other)
            assert isinstance(result.exception, Unavailable)
        assert fake.erased == [("", "ada")]


def test_an_erasure_asks_first(service: FakeData) -> None:
    result = run(service, "erase", "--user", "ada", answer="n\n")
    assert "Erase everything of user ada?" in result.output
    assert result.exit_code == 1
    assert service.erased == []
    assert run(service, "erase", "--user", "ada", answer="y\n").exit_code == 0
    assert service.erased == [("", "ada")]


def test_a_leftover_fails_the_verification(service: FakeData) -> None:
    clean = run(service, "verify", "--user", "ada")
    assert (clean.exit_code, json.loads(clean.stdout)["clean"]) == (0, True)
    left = run(service, "verify", "--user", "grace")
    assert left.exit_code == 1
    assert json.loads(left.stdout) == {
        "clean": False,
        "num_left": {"answers": 1},
        "num_keys_scanned": 9,
        "policy_versions": [],
    }


def test_an_export_is_an_object_a_line(service: FakeData) -> None:
    lines = run(service, "user", "--user", "ada").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "withdrawal", "state": "none"},
        {"kind": "prompt", "text": "柠檬"},
    ]


def test_a_key_that_is_not_good_is_one_line(service: FakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLINERLHF_ADMIN_KEY", "another")
    result = run(service, "verify", "--user", "ada")
    assert result.exit_code == 1
    assert str(result.exception) == "verifying an erasure: no such key"
