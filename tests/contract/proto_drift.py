"""Fail when the committed generated code is not what proto/ generates: run by `make check` and by the tests."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "services" / "onlinerlhf" / "v1"


def drift() -> list[str]:
    """Names of generated files that differ from, or are missing beside, a fresh generation."""
    with tempfile.TemporaryDirectory() as out:
        protos = sorted(str(path) for path in (ROOT / "proto" / "onlinerlhf" / "v1").glob("*.proto"))
        plugins = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}"]
        command += [f"--grpc_python_out={out}", f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}"]
        subprocess.run(command + protos, check=True, env=plugins)
        fresh = {path.name: path.read_bytes() for path in (Path(out) / "onlinerlhf" / "v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in COMMITTED.glob("*_pb2*")}
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


if __name__ == "__main__":
    changed = drift()
    if changed:
        sys.exit(f"generated code is out of date, run `make proto`: {', '.join(changed)}")
    print("generated code matches proto/")
