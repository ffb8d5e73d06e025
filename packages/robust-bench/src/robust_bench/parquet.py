"""The records of all images of a run as one Parquet file, for pandas, Polars, DuckDB and the like."""

import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robust_bench.kept import Kept, kept

_ROWS = 2**16  # of a row group


def write_records(run: str | Path, out: str | Path) -> Path:
    """Write what the model said of every image under every condition into one Parquet file.

    One row per part, image and condition, with the columns part, id, name (the image's file, where it is known), label,
    number (the condition's position in its part), condition (its label), prediction, confidence, right, broken_by, and
    the further columns of all parts, null where a part lacks one. Row groups are written one after another, so that
    memory does not grow with the run; a crash leaves the old file or the new one.

    Args:
        run: the run folder, with `evaluations/<part>/records.jsonl.gz`.
        out: the file; its folder is made.

    Raises:
        ImportError: if pyarrow is not installed.
        FileNotFoundError: if the run has no evaluations, or a part of it is not finished.
        ValueError: if a file is damaged, or a further column has the name of another one.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'robust-bench[parquet]'") from error
    parts = kept(Path(run)).values()
    more = _more(parts)
    schema = pyarrow.schema(
        [
            ("part", pyarrow.string()),
            ("id", pyarrow.int64()),
            ("name", pyarrow.string()),
            ("label", pyarrow.int64()),
            ("number", pyarrow.int32()),
            ("condition", pyarrow.string()),
            ("prediction", pyarrow.int64()),
            ("confidence", pyarrow.float32()),
            ("right", pyarrow.bool_()),
            ("broken_by", pyarrow.string()),
            *((name, pyarrow.float64()) for name in more),
        ]
    )
    if clash := [name for name in more if schema.names.count(name) > 1]:
        raise ValueError(f"the further column {clash[0]!r} of the records has the name of a column of the table")
    file = Path(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    rows = itertools.chain.from_iterable(_rows(part, more) for part in parts)
    try:
        with temporary.open("wb") as sink:
            with parquet.ParquetWriter(sink, schema) as writer:
                while group := list(itertools.islice(rows, _ROWS)):
                    columns = [list(column) for column in zip(*group, strict=True)]
                    writer.write_table(pyarrow.table(columns, schema=schema))
            os.fsync(sink.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def _more(parts: Any) -> list[str]:
    """The names of all further columns, which the first image of a part has all of."""
    firsts = (next(part.records(), None) for part in parts)
    return list(dict.fromkeys(name for seen in firsts if seen for columns in seen.more for name in columns))


def _rows(part: Kept, more: list[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a part, in the order of the columns."""
    labels = [row.condition for row in part.rows]
    for seen in part.records():
        conditions = zip(labels, seen.predictions, seen.confidences, seen.right, seen.broken_by, seen.more, strict=True)
        for number, (label, prediction, confidence, right, broken_by, columns) in enumerate(conditions):
            further = (columns.get(name) for name in more)
            yield (part.name, seen.id, seen.name, seen.label, number, label, prediction, confidence, right, broken_by,
                   *further)  # fmt: skip
