"""Evaluation results as they lie in a run folder, read by their documented format."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from robust_viz._text import printable

FORMAT = "robust-result/1"


@runtime_checkable
class ResultLike(Protocol):
    """What `robust_bench.Result` offers: a model's name and its rows."""

    model: str
    rows: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number.

    Attributes:
        benchmark: the data set.
        settings: what was done to the images: "kind" ("clean", "attack", "corruption") and what belongs to it.
        value: a fraction in [0, 1].
        low: lower end of its confidence interval, None if unknown.
        high: upper end, None if unknown.
        count: number of images, None if unknown.
    """

    benchmark: str
    settings: Mapping[str, Any]
    value: float
    low: float | None
    high: float | None
    count: int | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """The accuracies of one model.

    Attributes:
        model: its name.
        seed: of the evaluation, None if unknown.
        rows: the rows whose metric is the accuracy.
        digest: sha256 of the file that they come from, "" if they do not come from one.
        file: that file, None if they do not come from one.
    """

    model: str
    seed: int | None
    rows: tuple[Row, ...] = field(repr=False)
    digest: str = ""
    file: Path | None = None


Source = Mapping[str, Any] | ResultLike | Record | str | os.PathLike[str]
"""A result: the content of a result.json, the path of one, or an object with `.model` and `.rows`."""


def read_run(run: str | os.PathLike[str]) -> tuple[Record, ...]:
    """All results of a run folder: `result.json` in it first, then `*/result.json` in order of the folders' names.

    Models that share a name get the name of their folder beside it, as "robust (b)".

    Raises:
        FileNotFoundError: if there is no such folder, or no result in it.
        ValueError: if a file is not a result.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder at {folder}: give the folder that `robust-bench run --out` has written")
    own = folder / "result.json"
    files = [own] if own.is_file() else []
    files += sorted(folder.glob("*/result.json"), key=lambda file: file.parent.name)
    if not files:
        raise FileNotFoundError(f"no result.json in {folder} nor in its sub-folders: has `robust-bench run` finished?")
    records = [read(file) for file in files]
    names = [record.model for record in records]
    return tuple(
        replace(record, model=printable(f"{record.model} ({file.resolve().parent.name})"))
        if names.count(record.model) > 1
        else record
        for record, file in zip(records, files, strict=True)
    )


def read_all(sources: Source | Sequence[Source]) -> tuple[Record, ...]:
    """Results from one source or several; a path may also be a run folder.

    Raises:
        ValueError: if there is none, or two models share a name, or one of them cannot be read.
    """
    several: Sequence[Source] = (
        [sources] if isinstance(sources, Mapping | ResultLike | Record | str | os.PathLike) else sources
    )
    records: list[Record] = []
    for source in several:
        if isinstance(source, str | os.PathLike) and Path(source).is_dir():
            records.extend(read_run(source))
        else:
            records.append(read(source))
    names = [record.model for record in records]
    if len(set(names)) < len(names):
        raise ValueError(f"models need names of their own, got {', '.join(names)}: rename one in its result.json")
    if not records:
        raise ValueError("no results were given: pass a run folder, paths of result.json files or Result objects")
    return tuple(records)


def read(source: Source) -> Record:
    """One result.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, of another format, or lacks something.
    """
    if isinstance(source, Record):
        return source
    if isinstance(source, Mapping):
        return _from_json(source, "the mapping")
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source))
    rows = tuple(
        _row(_as_mapping(row), source.model, f"row {i} of {source.model}") for i, row in enumerate(source.rows)
    )
    seed = _seed(getattr(source, "seed", None), source.model)
    return Record(model=printable(source.model), seed=seed, rows=tuple(r for r in rows if r is not None))


def _from_file(file: Path) -> Record:
    if not file.is_file():
        raise FileNotFoundError(f"no result at {file}: give the path of a result.json or of a run folder")
    content = file.read_bytes()
    try:
        data = json.loads(content)
    except ValueError as error:  # of the encoding, of JSON, or a number of thousands of digits
        raise ValueError(f"{file} is not JSON ({error}): was it cut off? evaluate again") from error
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply to be a result: evaluate again") from error
    if not isinstance(data, Mapping):
        raise ValueError(f"{file} holds a {type(data).__name__} and not a result: expected a {FORMAT} mapping")
    record = _from_json(data, str(file))
    return replace(record, digest=hashlib.sha256(content).hexdigest(), file=file)


def _from_json(data: Mapping[str, Any], where: str) -> Record:
    if data.get("format") != FORMAT:
        raise ValueError(f'{where} is not a result: its "format" is {data.get("format")!r}, expected "{FORMAT}"')
    for key, kind in (("model", str), ("benchmark", str), ("rows", list)):
        if not isinstance(data.get(key), kind):
            raise ValueError(f'{where} has no "{key}" ({kind.__name__}), got {data.get(key)!r}: evaluate again')
    rows = (_row(row, data["benchmark"], f"row {i} of {where}") for i, row in enumerate(data["rows"]))
    return Record(
        model=printable(data["model"]),
        seed=_seed(data.get("seed"), where),
        rows=tuple(row for row in rows if row is not None),
    )


def _row(row: Any, benchmark: str, where: str) -> Row | None:
    """A row, or None where it measures something else than the accuracy."""
    if not isinstance(row, Mapping) or not isinstance(row.get("settings"), Mapping):
        raise ValueError(f'{where} has no "settings": it is not one of {FORMAT}')
    if row.get("metric") != "accuracy":
        return None
    value: Any = row.get("value")
    low: Any = row.get("low")
    high: Any = row.get("high")
    count: Any = row.get("count")
    if not _is_number(value, most=1):
        raise ValueError(f"{where} has the accuracy {value!r}: expected a fraction in [0, 1]")
    for key, end in (("low", low), ("high", high)):
        if end is not None and not _is_number(end, most=1):
            raise ValueError(f'{where} has the "{key}" {end!r}: expected a fraction in [0, 1] or null')
    if count is not None and not _is_whole(count):
        raise ValueError(f'{where} has the "count" {count!r}: expected a number of images or null')
    name = row.get("benchmark")
    if name is not None and not isinstance(name, str):
        raise ValueError(f'{where} has the "benchmark" {name!r}: expected the name of a data set')
    _check_settings(row["settings"], where)
    return Row(
        benchmark=printable(name or benchmark),
        settings=row["settings"],
        value=float(value),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        count=count,
    )


def _check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Refuse settings that a figure would place wrongly or stumble over."""
    kind, eps, severity = (settings.get(key) for key in ("kind", "eps", "severity"))
    one_number = (eps is not None and not isinstance(eps, Sequence | Mapping)) or isinstance(eps, str)
    if kind == "attack" and one_number and not _is_number(eps, most=math.inf):
        raise ValueError(f'{where} has the "eps" {eps!r}: expected a number that is at least 0')
    if kind == "corruption" and severity is not None and not _is_whole(severity):
        raise ValueError(f'{where} has the "severity" {severity!r}: expected a whole number')
    try:
        json.dumps(settings, sort_keys=True, default=str)
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f'{where} has "settings" that cannot be written as JSON: evaluate again') from error


def _is_number(value: object, most: float) -> bool:
    """Whether this is a finite number in [0, most]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and 0 <= value <= most
    except OverflowError:  # an int beyond all floats
        return False


def _is_whole(value: object) -> bool:
    """Whether this is an integer from 0 up to what a picture can count."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _seed(seed: Any, where: str) -> int | None:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ValueError(f'{where} has the "seed" {seed!r}: expected an integer or null')
    return seed


def _as_mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    names = ("benchmark", "settings", "metric", "value", "low", "high", "count")
    return {name: getattr(row, name, None) for name in names}
