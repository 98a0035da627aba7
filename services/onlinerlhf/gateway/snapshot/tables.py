"""The tables of a snapshot as Parquet: the same rows give the same bytes.

Whatever a training command reads whole comes in a file a split, so that nobody trains on what is held out:
prompts.parquet and comparisons.parquet hold the training split, and …_valid.parquet and …_test.parquet the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from onlinerlhf.core.samples import Prompt
from onlinerlhf.gateway.snapshot.comparisons import Comparison
from onlinerlhf.gateway.snapshot.material import StoredAnswer, StoredJudgement
from onlinerlhf.gateway.snapshot.rules import SPLITS, Chosen

_MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_USE_CASE: Final = [("split", pa.string()), ("use_case", pa.string()), ("use_case_source", pa.string())]

PROMPTS: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("user", pa.string()),
        ("tenant", pa.string()),
        ("pii_kinds", pa.list_(pa.string())),
        *_USE_CASE,
        ("notice_version", pa.string()),
        ("admitted_at_seconds", pa.float64()),
    ]
)
ANSWERS: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", _MESSAGES),
        ("response", pa.string()),
        ("pii_kinds", pa.list_(pa.string())),
        ("policy_version", pa.int64()),
        ("user", pa.string()),
        *_USE_CASE,
        ("created_at_seconds", pa.int64()),
    ]
)
FEEDBACK: Final = pa.schema(
    [
        ("feedback_id", pa.string()),
        ("kind", pa.string()),
        ("value", pa.float64()),
        ("sample_ids", pa.list_(pa.string())),
        ("policy_versions", pa.list_(pa.int64())),
        ("text", pa.string()),
        ("user", pa.string()),
        *_USE_CASE,
        ("created_at_seconds", pa.int64()),
    ]
)
COMPARISONS: Final = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("responses", pa.list_(pa.string())),
        ("ranks", pa.list_(pa.int64())),
        ("labeler", pa.string()),
        ("source", pa.string()),
        ("prompt_id", pa.string()),
        ("feedback_id", pa.string()),
        *_USE_CASE,
    ]
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One file."""

    file_name: str
    schema: Any
    """A pyarrow schema."""
    rows: Sequence[Row]

    def write(self, directory: Path) -> None:
        """As zstd Parquet, without pandas metadata or times of writing."""
        table = pa.Table.from_pylist(list(self.rows), schema=self.schema)
        pq.write_table(table, directory / self.file_name, compression="zstd")


def tables(chosen: Chosen, compared: Sequence[Comparison]) -> list[Table]:
    """All files, in a fixed order."""
    tags = {prompt.prompt_id: _tags(prompt, chosen.split) for prompt in chosen.prompts}
    prompt_of = {answer.sample_id: answer.prompt_id for answer in chosen.answers}
    return [
        *_by_split("prompts", PROMPTS, (_prompt(each) | tags[each.prompt_id] for each in chosen.prompts)),
        Table(
            file_name="answers.parquet",
            schema=ANSWERS,
            rows=[_answer(each) | tags[each.prompt_id] for each in chosen.answers],
        ),
        Table(
            file_name="feedback.parquet",
            schema=FEEDBACK,
            rows=[_judgement(each) | tags[prompt_of[each.sample_ids[0]]] for each in chosen.judgements],
        ),
        *_by_split("comparisons", COMPARISONS, (_comparison(each) | tags[each.prompt_id] for each in compared)),
    ]


def _by_split(name: str, schema: Any, rows: Iterable[Row]) -> list[Table]:
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        by_split[row["split"]].append(row)
    train, *held_out = SPLITS
    names = {train: f"{name}.parquet"} | {split: f"{name}_{split}.parquet" for split in held_out}
    return [Table(file_name=names[split], schema=schema, rows=rows) for split, rows in by_split.items()]


def _tags(prompt: Prompt, split: Mapping[str, str]) -> Row:
    return {
        "split": split[prompt.prompt_id],
        "use_case": prompt.use_case.value,
        "use_case_source": prompt.use_case_source,
    }


def _messages(turns: Sequence[tuple[str, str]]) -> list[Row]:
    return [{"role": role, "content": text} for role, text in turns]


def _prompt(prompt: Prompt) -> Row:
    return {
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.text,
        "token_ids": list(prompt.token_ids),
        "user": prompt.owner,
        "tenant": prompt.tenant,
        "pii_kinds": list(prompt.pii_kinds),
        "notice_version": prompt.consent.notice_version,
        "admitted_at_seconds": prompt.admitted_at_seconds,
    }


def _answer(answer: StoredAnswer) -> Row:
    return {
        "sample_id": answer.sample_id,
        "prompt_id": answer.prompt_id,
        "prompt": _messages(answer.turns),
        "response": answer.response,
        "pii_kinds": list(answer.pii_kinds),
        "policy_version": answer.version,
        "user": answer.owner,
        "created_at_seconds": answer.created_at_seconds,
    }


def _judgement(judgement: StoredJudgement) -> Row:
    return {
        "feedback_id": judgement.feedback_id,
        "kind": judgement.kind,
        "value": judgement.value,
        "sample_ids": list(judgement.sample_ids),
        "policy_versions": list(judgement.versions),
        "text": judgement.text or None,
        "user": judgement.owner,
        "created_at_seconds": judgement.created_at_seconds,
    }


def _comparison(comparison: Comparison) -> Row:
    return {
        "prompt": _messages(comparison.turns),
        "responses": list(comparison.responses),
        "ranks": list(comparison.ranks),
        "labeler": comparison.labeler,
        "source": comparison.source,
        "prompt_id": comparison.prompt_id,
        "feedback_id": comparison.feedback_id,
    }
