"""Rows of JSON Lines and Parquet files, read through `datasets`. Every error names file, row and field, never a text.

JSON lines are read as text and decoded here: the library's own JSON reader guesses one type for a whole column, which
turns a text that looks like a date into a date, and cannot say which row is wrong.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onlinerlhf.core.errors import DataError

SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and where it stands."""

    path: Path
    number: int
    """From 1; of a JSON Lines file, the line."""
    values: Mapping[str, Any]

    def error(self, field: str, problem: str) -> DataError:
        """What is wrong with a field of this row."""
        return DataError(f"{self.path}, row {self.number}, field {field}: {problem}")

    def has(self, field: str) -> bool:
        """Whether the field is there; null counts as absent, for Parquet knows no other way."""
        return self.values.get(field) is not None

    def get(self, field: str, expected: str) -> Any:
        """The field's value. DataError where it is absent."""
        if not self.has(field):
            names = ", ".join(sorted(name for name in self.values if self.has(name))) or "none"
            raise self.error(field, f"is missing, expected {expected}; the row's fields: {names}")
        return self.values[field]

    def text(self, field: str) -> str:
        """A text that is not empty."""
        return self.checked_text(field, self.get(field, "a text"))

    def checked_text(self, field: str, value: object) -> str:
        """`value`, which stands somewhere in this field, if it is a text that is not empty."""
        if not isinstance(value, str):
            raise self.error(field, f"expected a text, got {kind(value)}")
        if not value.strip():
            raise self.error(field, "expected a text, got an empty one")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(field, "expected a text, got half a surrogate pair, which is no character")
        return value

    def items(self, field: str, expected: str) -> list[Any]:
        """A list."""
        value = self.get(field, expected)
        if not isinstance(value, list):
            raise self.error(field, f"expected {expected}, got {kind(value)}")
        return value


def kind(value: object) -> str:
    """What a value is, in the words of a person who wrote JSON."""
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")


def read_rows(paths: Path | Sequence[Path]) -> Iterator[Row]:
    """All rows of one or several files, in order. DataError for a file without any."""
    for path in [paths] if isinstance(paths, Path) else paths:
        if path.suffix not in SUFFIXES:
            raise DataError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        is_empty = True
        for number, row in enumerate(_parquet(path) if path.suffix == ".parquet" else _json_lines(path), 1):
            if row is not None:
                is_empty = False
                yield Row(path, number, row)
        if is_empty:
            raise DataError(f"{path}: the file holds no rows")


def _json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """None for a blank line."""
    for number, record in enumerate(_stream(path, "text"), 1):
        line = record["text"].strip().removeprefix("\ufeff")
        if not line:
            yield None
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            at = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"{path}, row {number}{at}: the line is not JSON; expected one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object with fields, got {kind(row)}")
        yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    return _stream(path, "parquet")


def _stream(path: Path, reader: str) -> Iterator[dict[str, Any]]:
    """Rows straight off the file. Not `load_dataset`: that counts a download over the network first."""
    import datasets
    from pyarrow.parquet import read_metadata

    # Its log repeats our errors, with less in them.
    datasets.logging.set_verbosity(logging.CRITICAL)
    read = datasets.Dataset.from_parquet if reader == "parquet" else datasets.Dataset.from_text
    try:
        if reader == "parquet" and read_metadata(path).num_rows == 0:
            return  # The library takes a file without rows for a broken one.
        with tempfile.TemporaryDirectory(prefix="onlinerlhf-") as scratch:
            rows = read(_escaped(path), cache_dir=scratch, streaming=True)
        yield from rows
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as {reader} ({type(error).__name__})") from error


def _escaped(path: Path) -> str:
    """The library takes names for patterns."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path.resolve()))
