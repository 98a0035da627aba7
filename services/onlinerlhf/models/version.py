"""Names a model by its content."""

import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def model_version(path: Path | str) -> str:
    """A short digest of a model directory's config and weights: equal directories have equal versions."""
    directory = Path(path)
    files = sorted([directory / "config.json", *directory.glob("*.safetensors")])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()[:12]
