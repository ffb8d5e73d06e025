"""What an evaluation found: rows of accuracies with their intervals, as a table and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from rich.console import RenderableType

from robust_bench.files import write_durably
from robust_bench.metrics.intervals import clopper_pearson
from robust_bench.tables import ACCURACY, render, table

FORMAT = "robust-result/1"
FRACTION = "fraction"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a model: how often it was right on one benchmark under one condition, or another score.

    Args:
        benchmark: name of the data set, e.g. "digits" also for a row of "digits-c", so that rows share the clean one.
        condition: what was done to the images, for readers, e.g. "PGD Linf 0.15".
        settings: the same for programs: "kind" ("clean", "attack", "corruption", ..., or "score" for a number over
            several images or conditions) and every setting. JSON values only.
        metric: what `value` is: "accuracy", which under an attack counts the images that are right both when clean
            and under the attack, or e.g. "mean_corruption_error", a function of `robust_bench.metrics`.
        unit: of the value: "fraction", or e.g. "distance".
        value: for an accuracy the fraction `correct / count`.
        low: lower end of the 95 % interval: Clopper and Pearson's for accuracies, the bootstrap's for other scores;
            None where none is known.
        high: its upper end.
        correct: images that were right; None for another score.
        count: images that were looked at.
        seconds: wall-clock time that this row took.

    Raises:
        ValueError: if a number is not finite or impossible, or text cannot be stored as UTF-8.
        TypeError: if a field has another type, or a setting is not a JSON value.
    """

    benchmark: str
    condition: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ACCURACY
    unit: str = FRACTION
    value: float
    low: float | None = None
    high: float | None = None
    correct: int | None = None
    count: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _checked(entry.name, getattr(self, entry.name)))
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low and high come together, got {self.low} and {self.high}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must be at most high, got {self.low} and {self.high}")
        if self.metric == ACCURACY:
            self._check_accuracy()
        if self.seconds < 0:
            raise ValueError(f"seconds must be at least 0, got {self.seconds}")

    def _check_accuracy(self) -> None:
        if self.correct is None or self.low is None or self.high is None:
            raise ValueError("an accuracy has correct, low and high: use Row.accuracy")
        if not 0 <= self.correct <= self.count:
            raise ValueError(f"correct must lie in 0..count, got {self.correct} of {self.count}")
        if not 0.0 <= self.low <= self.value <= self.high <= 1.0:
            raise ValueError(
                f"an accuracy is a fraction with 0 <= low <= value <= high <= 1, got {self.value} in "
                f"[{self.low}, {self.high}]"
            )

    @classmethod
    def accuracy(
        cls, *, benchmark: str, condition: str, settings: Mapping[str, Any], correct: int, count: int, seconds: float
    ) -> Self:
        """Make the row of `correct` among `count` images, with its 95 % Clopper-Pearson interval."""
        low, high = clopper_pearson(correct, count)
        return cls(
            benchmark=benchmark,
            condition=condition,
            settings=settings,
            value=correct / count,
            low=low,
            high=high,
            correct=correct,
            count=count,
            seconds=seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """All rows of one model in one run, with what is needed to repeat it.

    `print(result)` shows a table in per cent; everything else here is a fraction.

    Args:
        model: the model's name in tables.
        benchmark: the benchmarks that were run, joined by commas.
        seed: of every random draw in attacks and corruptions.
        rows: the numbers.
        versions: of Python, torch, timm and our packages.
        created: when, in UTC, as "2026-01-31T12:00:00Z".
        settings: how: data, preprocessing, device, batch size, and "model" where it is known how to build it.

    Raises:
        ValueError: if a number is not finite, or text cannot be stored as UTF-8.
        TypeError: if a setting is not a JSON value.

    Examples:
        >>> row = Row.accuracy(benchmark="digits", condition="clean", settings={}, correct=441, count=450, seconds=0.1)
        >>> result = Result(model="small_cnn_8", benchmark="digits", seed=0, rows=(row,))
        >>> Result.from_json(result.to_json()) == result
        True
    """

    model: str
    benchmark: str
    seed: int = 0
    rows: tuple[Row, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in fields(self):
            if entry.name != "rows":
                object.__setattr__(self, entry.name, _checked(entry.name, getattr(self, entry.name)))
        object.__setattr__(self, "rows", tuple(self.rows))

    def __str__(self) -> str:
        return render(table([self]))

    def __rich__(self) -> RenderableType:
        return table([self])

    def to_json(self) -> str:
        """Write everything as JSON text; `from_json` gives an equal result back."""
        document: dict[str, Any] = {"format": FORMAT}
        document |= {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "rows"}
        document["rows"] = [{entry.name: getattr(row, entry.name) for entry in fields(row)} for row in self.rows]
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str | Path = "the text") -> Self:
        """Read what `to_json` wrote. `source` names the text in error messages.

        Raises:
            ValueError: if the text is not complete JSON, is something else than a result, has a newer format, or holds
                a row that cannot be; the message says which one, counted from 1.
        """
        try:
            document = json.loads(text)
        except RecursionError as error:
            raise ValueError(f"{source} is not a result of robust-bench: it is nested too deeply") from error
        except ValueError as error:
            raise ValueError(f"{source} is not complete JSON ({error}): was its writing cut off?") from error
        version = document.get("format") if isinstance(document, dict) else None
        if version != FORMAT:
            if isinstance(version, str) and version.startswith("robust-result/"):
                raise ValueError(f"{source} has format {version!r}, this robust-bench reads {FORMAT!r}: upgrade it")
            raise ValueError(f'{source} is not a result of robust-bench: "format" is {version!r}, expected {FORMAT!r}')
        document.pop("format")
        where = str(source)
        try:
            listed = document.pop("rows")
            if not isinstance(listed, list):
                raise TypeError(f"rows must be a list, got {type(listed).__name__}")
            rows = []
            for number, row in enumerate(listed, start=1):
                where = f"{source}, row {number},"
                rows.append(Row(**row))
            where = str(source)
            return cls(rows=tuple(rows), **document)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{where} says it is {FORMAT!r} but does not have its fields: {reason}") from error

    def save(self, path: str | Path) -> Path:
        """Write the result to a JSON file, durably: a crash leaves the old file or the new one, never a part."""
        return write_durably(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a result file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is truncated, foreign or newer than this version; the path is named.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"no result file {file}: `robust-bench run --out FOLDER` writes FOLDER/result.json")
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not a result of robust-bench: it is not UTF-8 text") from error
        return cls.from_json(text, source=file)


_TYPES: Mapping[str, tuple[type, str]] = {
    "model": (str, "text"),
    "benchmark": (str, "text"),
    "condition": (str, "text"),
    "metric": (str, "text"),
    "unit": (str, "text"),
    "created": (str, "text"),
    "seed": (int, "an integer"),
    "correct": (int, "an integer"),
    "count": (int, "an integer"),
    "settings": (Mapping, "a mapping"),
    "versions": (Mapping, "a mapping"),
}


_OPTIONAL = ("low", "high", "correct")


def _checked(name: str, value: Any) -> Any:
    """Copy a field of JSON values; those that are not in the table above are real numbers.

    Raises:
        TypeError: if it has another type.
        ValueError: if it cannot be stored.
    """
    if value is None and name in _OPTIONAL:
        return None
    kind, words = _TYPES.get(name, (float, "a number"))
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError as error:
            raise ValueError(f"{name} must be a number that a float can hold") from error
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} must be {words}, got {type(value).__name__}")
    return plain(value, name)


def plain(value: Any, where: str) -> Any:
    """Copy a value made of JSON's types, turning tuples into lists, so that reading it back gives an equal one.

    Raises:
        ValueError: if a float is not finite, or a string holds half a surrogate pair.
        TypeError: if something is not a JSON value. `where` names it.
    """
    match value:
        case None | bool() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{where} must be finite to be stored, got {value}")
            return value
        case str():
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise ValueError(f"{where} must be text that UTF-8 can store, got {value!r}")
            return str(value)
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    raise TypeError(f"the keys of {where} must be strings, got {key!r}")
            return {plain(key, f"a key of {where}"): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{where} must be made of numbers, text, lists and mappings, got {type(value).__name__}: {value!r}")
