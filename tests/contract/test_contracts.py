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


@pytest.mark.parametrize("module", ["onlinerlhf.gateway.app", "onlinerlhf.cli", "onlinerlhf_client"])
def test_a_slim_import_loads_neither_torch_nor_vllm(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'vllm', 'transformers', 'matplotlib'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_client_loads_the_generated_protocol_and_nothing_else_of_ours() -> None:
    ours = "sorted({m.split('.')[1] for m in sys.modules if m.startswith('onlinerlhf.')})"
    code = f"import sys, onlinerlhf_client; print({ours})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['v1']"
