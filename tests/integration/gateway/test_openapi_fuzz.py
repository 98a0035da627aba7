"""Hundreds of requests made up from the OpenAPI document, right and wrong ones, against a real gateway.

None may be answered with 5xx, with a status or a shape that the document does not have, or be accepted against the
document; and nothing of what was sent may be found in a refusal, a log line or a metric.
"""

import asyncio
import io
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from prometheus_client import generate_latest
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Err
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from integration.gateway.http_front import MODEL, Front, front_of
from onlinerlhf.runtime import logs

if TYPE_CHECKING:
    from integration.gateway.conftest import StartGateway

pytestmark = pytest.mark.timeout(300)

CANARY = "zanzibar7319"
NUM_CASES = 50
"""Of each operation and mode."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
]


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """What the process logs, down to DEBUG, in the format of production and as plain text."""
    text = io.StringIO()
    formatters = [logs._Formatter("gateway"), logging.Formatter("%(message)s %(args)s")]
    handlers = [logging.StreamHandler(text) for _ in formatters]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    # The test's own clients are not the gateway.
    quiet = [logging.getLogger(name) for name in ("urllib3", "httpx", "httpcore", "hypothesis", "requests")]
    before = [logger.level for logger in quiet]
    for handler, formatter in zip(handlers, formatters, strict=True):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    yield text
    root.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)
    for logger, old in zip(quiet, before, strict=True):
        logger.setLevel(old)


def plant(value: Any) -> Any:
    """The canary in every text a client may write freely."""
    match value:
        case dict():
            return {key: plant_text(key, each) for key, each in value.items()}
        case list():
            return [plant(each) for each in value]
        case _:
            return value


def plant_text(key: str, value: Any) -> Any:
    """Names and numbers stay what the document wants them to be."""
    if isinstance(value, str) and key in ("content", "text", "prompt"):
        return f"{CANARY} {value}"
    if key == "prompt" and isinstance(value, list):
        return [f"{CANARY} {each}" if isinstance(each, str) else each for each in value]
    return plant(value)


@dataclass
class Fuzz:
    """Makes and sends requests; runs in a thread of its own."""

    front: Front
    statuses: Counter[int] = field(default_factory=Counter)
    session: requests.Session = field(default_factory=requests.Session)

    def run(self) -> None:
        document = self.session.get(f"{self.front.url}/openapi.json", timeout=10).json()
        for shape in ("ChatRequest", "CompletionRequest"):
            # Else hardly any request would get past the name of the model.
            document["components"]["schemas"][shape]["properties"]["model"]["enum"] = [MODEL]
        schema = schemathesis.openapi.from_dict(document)
        with self.session:
            for operation in schema.get_all_operations():
                if isinstance(operation, Err):
                    raise operation.err()
                for mode in GenerationMode:
                    self._run_operation(operation.ok(), mode)

    def _run_operation(self, operation: Any, mode: GenerationMode) -> None:
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.path_parameters):
            return

        @hypothesis.seed(20220304)
        @hypothesis.settings(
            max_examples=NUM_CASES,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(mode))
        def send(case: Any) -> None:
            if mode is GenerationMode.POSITIVE:
                case.body = plant(case.body)
            headers = {"Authorization": f"Bearer {self.front.key}"}
            response = case.call(self.front.url, self.session, headers, timeout=20)
            self.statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS, headers=headers)
            if response.status_code >= 400 and case.method != "HEAD":
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}
                assert CANARY not in response.text
            assert self.front.key not in response.text

        send()


async def test_hundreds_of_made_up_requests_never_break_it_and_leave_no_trace_of_what_they_said(
    start_gateway: "StartGateway", log_lines: io.StringIO
) -> None:
    unlimited: dict[str, Any] = {"playground_limits": {}, "user_limits": {}, "organisation_limits": {}}
    front = await front_of(await start_gateway(**unlimited))
    fuzz = Fuzz(front)
    await asyncio.to_thread(fuzz.run)
    assert fuzz.statuses.total() >= 300
    assert fuzz.statuses[200] >= 50
    assert fuzz.statuses[400] >= 50
    assert not [status for status in fuzz.statuses if status >= 500]
    written = log_lines.getvalue() + generate_latest().decode()
    assert "onlinerlhf_gateway_http_seconds" in written
    assert CANARY not in written
    assert front.key not in written
