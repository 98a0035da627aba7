"""From material to a directory, all of it or none: files are written beside it and renamed at the end."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from onlinerlhf.core.errors import DataError
from onlinerlhf.gateway.snapshot.comparisons import comparisons
from onlinerlhf.gateway.snapshot.manifest import RunRules, manifest, write
from onlinerlhf.gateway.snapshot.material import Advance, Material
from onlinerlhf.gateway.snapshot.rules import SnapshotRules, choose
from onlinerlhf.gateway.snapshot.tables import tables

MANIFEST = "manifest.json"


def check_absent(out: Path) -> None:
    """Raises DataError where there is something already: a snapshot is never changed."""
    if out.exists() or out.is_symlink():
        raise DataError(f"{out} exists already; a snapshot is written once, so give another directory")


def build(
    material: Material,
    out: Path,
    *,
    run: str,
    rules: SnapshotRules,
    run_rules: RunRules,
    advance: Advance = lambda _num: None,
) -> dict[str, Any]:
    """Write a snapshot and return its manifest. Readable by its owner alone: it holds what people wrote."""
    check_absent(out)
    chosen = choose(material, rules, advance)
    compared, not_compared = comparisons(chosen.judgements, chosen.answers)
    written = tables(chosen, compared)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for table in written:
            table.write(scratch)
        record = manifest(
            run=run,
            material=material,
            chosen=chosen,
            not_compared=not_compared,
            rules=rules,
            run_rules=run_rules,
            written=written,
            directory=scratch,
        )
        write(record, scratch / MANIFEST)
        _to_disk(scratch)
        check_absent(out)
        scratch.rename(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return record


def _to_disk(directory: Path) -> None:
    """Before the rename: after a power cut, a directory with this name has whole files."""
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
