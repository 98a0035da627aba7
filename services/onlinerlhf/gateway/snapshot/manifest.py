"""manifest.json of a snapshot: what is in it, by which rules, made with what. The same inputs give the same bytes."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from onlinerlhf.gateway.snapshot.material import Material
from onlinerlhf.gateway.snapshot.rules import Chosen, SnapshotRules
from onlinerlhf.gateway.snapshot.tables import Table

FORMAT: Final = 1
_PACKAGES: Final = ("onlinerlhf", "pyarrow", "rensa")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRules:
    """Rules that gateways applied before anything was stored, as far as their settings are at hand."""

    valid_share: float | None = None
    test_share: float | None = None
    decontamination_sha256: str | None = None
    """Of the file of evaluation prompts that were kept out; None: none were, or its settings are not at hand."""


def manifest(
    *,
    run: str,
    material: Material,
    chosen: Chosen,
    not_compared: Mapping[str, int],
    rules: SnapshotRules,
    run_rules: RunRules,
    written: Sequence[Table],
    directory: Path,
) -> dict[str, Any]:
    """No clock in it: what time it shows is the newest record's."""
    use_cases = Counter(prompt.use_case.value for prompt in chosen.prompts)
    newest = [
        *(each.prompt.admitted_at_seconds for each in material.prompts),
        *(answer.created_at_seconds for answer in material.answers),
        *(judgement.created_at_seconds for judgement in material.judgements),
    ]
    return {
        "format": FORMAT,
        "run": run,
        "newest_record_seconds": max(newest, default=None),
        "counts": {
            "prompts": len(chosen.prompts),
            "users": len({prompt.owner for prompt in chosen.prompts}),
            "answers": len(chosen.answers),
            "feedback": len(chosen.judgements),
            "by_split": dict(sorted(Counter(chosen.split.values()).items())),
            "by_use_case": dict(sorted(use_cases.items())),
        },
        "dropped": {**chosen.dropped, "comparisons": dict(sorted(not_compared.items()))},
        "rules": {
            "prompts_per_user": {"most": rules.prompts_per_user, "kept": "those with the lowest keyed hashes"},
            "near_duplicates": {
                **asdict(rules.near_duplicates),
                "num_bands": rules.near_duplicates.num_bands,
                "similarity": "Jaccard",
                "kept": "the oldest",
            },
            "split": {
                "by": "keyed hash of the organisation, or of the user where there is none",
                "salt_and_shares_digest": material.split_lineage,
                "valid_share": run_rules.valid_share,
                "test_share": run_rules.test_share,
            },
            "decontamination_sha256": run_rules.decontamination_sha256,
        },
        "policy_versions": sorted({answer.version for answer in chosen.answers}),
        "made_with": {package: version(package) for package in _PACKAGES},
        "files": {
            table.file_name: {"rows": len(table.rows), "sha256": sha256(directory / table.file_name)}
            for table in written
        },
    }


def write(record: Mapping[str, Any], path: Path) -> None:
    """As JSON with its fields in this order."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
