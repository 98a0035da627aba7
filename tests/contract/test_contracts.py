"""The contracts between parts: generated code, import directions, what a slim import loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from contract.proto_drift import drift

ROOT = Path(__file__).resolve().parents[2]


def test_the_generated_code_is_what_the_protos_generate() -> None:
    assert drift() == []


@pytest.mark.timeout(60)
def test_imports_run_one_way() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# The HTTP front needs fastapi and uvicorn; what commands, other rooms and other people's clients need is not there.
TRAINING = {"torch", "vllm", "transformers", "matplotlib"}
NOT_SERVING = {"numpy", "pyarrow", "rich", "openai", "httpx", "spacy", "presidio_analyzer", "faker", "rensa"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("onlinerlhf.gateway.app", TRAINING | NOT_SERVING),
        ("onlinerlhf.runtime.tracing", TRAINING | NOT_SERVING | {"opentelemetry"}),
        ("onlinerlhf.cli", TRAINING | NOT_SERVING | {"grpc", "redis", "pydantic", "fastapi", "uvicorn", "tokenizers"}),
    ],
)
def test_a_slim_import_loads_nothing_heavy(module: str, heavy: set[str]) -> None:
    assert loaded_by(module) & heavy == set()


def loaded_by(module: str) -> set[str]:
    """Top-level packages that are loaded after an import in a fresh process."""
    code = f"import sys, {module}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_client_needs_grpc_and_protobuf_alone() -> None:
    needed = loaded_by("onlinerlhf_client") - loaded_by("grpc") - sys.stdlib_module_names
    assert needed - {"google"} == {"onlinerlhf", "onlinerlhf_client"}


def test_the_client_loads_the_generated_protocol_and_nothing_else_of_ours() -> None:
    ours = "sorted({m.split('.')[1] for m in sys.modules if m.startswith('onlinerlhf.')})"
    code = f"import sys, onlinerlhf_client; print({ours})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['v1']"
