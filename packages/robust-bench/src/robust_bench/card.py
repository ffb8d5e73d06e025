"""A result card: one page about one run, with everything that is needed to repeat it."""

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_bench import markdown
from robust_bench._distribution import DISTRIBUTION
from robust_bench.flat import flat
from robust_bench.kept import EVALUATIONS, Kept, kept
from robust_bench.report.run_folder import RESULT_FILE
from robust_bench.result import Result, Row, plain
from robust_bench.runner import Run
from robust_bench.tables import interval, metric_name, number

_ELSEWHERE = ("data", "model", "command", "benchmarks", "parts", "warnings")


def card(run: str | Path) -> str:
    """Write a run as a page of Markdown.

    It has the model with its weights' hash, the command, settings and versions, the data with their fingerprints, all
    rows with their 95 % intervals, and what makes them doubtful. Names are text, never markup.

    Args:
        run: the run folder of one model, with result.json.

    Raises:
        FileNotFoundError: if there is no result.
        ValueError: if a file is damaged.
    """
    folder = Path(run)
    result = Result.load(folder / RESULT_FILE)
    parts = kept(folder) if (folder / EVALUATIONS).is_dir() else {}
    blocks = [
        f"# {markdown.escape(result.model) or 'A model without a name'}",
        markdown.escape(
            f"Evaluated on {result.benchmark} by {DISTRIBUTION} {result.versions.get(DISTRIBUTION, '')}, "
            f"{result.created or 'date unknown'}."
        ),
        *_section("Warnings", "".join(f"- {markdown.escape(text)}\n" for text in _warnings(result, parts))),
        *_results(result.rows),
        *_section("Model", _facts(result.settings.get("model"))),
        *_section("To repeat it", _command(result)),
        *_section("Settings", _facts({"seed": result.seed} | _rest(result.settings))),
        *_section("Conditions", _conditions(result.rows)),
        *_section("Data", _data(result)),
        *_section("Fingerprints", _fingerprints(parts)),
        *_section("Versions", _facts(result.versions)),
    ]
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def command(settings: Mapping[str, Any]) -> str:
    """Write the settings of a run, as its result has them, as the command that repeats it.

    What is by default is left out.

    Examples:
        >>> command({"model": "small_cnn_8", "benchmarks": ["digits", "digits-c"], "out": "my runs/a", "seed": 0})
        "robust-bench run --model small_cnn_8 --benchmarks digits,digits-c --out 'my runs/a'"
    """
    known: dict[str, Any] = {}
    for entry in dataclasses.fields(Run):
        if entry.default_factory is not dataclasses.MISSING:
            nested = plain(dataclasses.asdict(entry.default_factory()), entry.name)
            known |= flat({entry.name: nested})
        elif entry.default is not dataclasses.MISSING:
            known[entry.name] = entry.default
    words = [DISTRIBUTION, "run"]
    for name, value in flat(settings):
        if value is not None and value != known.get(name):
            word = ",".join(value) if name == "benchmarks" and isinstance(value, list) else _word(value)
            words += [f"--{name}={word}"] if word.startswith("-") else [f"--{name}", word]
    return shlex.join(words)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _section(title: str, body: str) -> tuple[str, ...]:
    return (f"## {title}", body) if body else ()


def _results(rows: Sequence[Row]) -> Iterator[str]:
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        header = ("condition", "metric", "unit", "value", "95 % interval", "right", "images", "seconds")
        lines = [
            (
                row.condition,
                metric_name(row.metric),
                "%" if row.unit == "fraction" else row.unit,
                number(row, row.value),
                interval(row) or "–",
                "–" if row.correct is None else str(row.correct),
                str(row.count),
                f"{row.seconds:.1f}",
            )
            for row in rows
            if row.benchmark == benchmark
        ]
        yield f"## Results on {markdown.escape(benchmark)}"
        yield markdown.table(header, lines, right=range(3, len(header)))


def _conditions(rows: Sequence[Row]) -> str:
    """All settings of all rows."""
    lines = [(row.benchmark, row.condition, metric_name(row.metric), _settings(row.settings)) for row in rows]
    return markdown.table(("benchmark", "condition", "metric", "settings"), lines) if lines else ""


def _settings(known: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in flat(known) if value != {})


def _facts(known: Any) -> str:
    """A table of names and values."""
    if not isinstance(known, Mapping) or not known:
        return ""
    return markdown.table(("what", "value"), [(name, _word(value)) for name, value in flat(known) if value != {}])


def _rest(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _ELSEWHERE}


def _command(result: Result) -> str:
    settings = result.settings.get("command")
    if isinstance(settings, Mapping):
        return markdown.fence(command(settings))
    return "Evaluated by a call of `robust_bench.evaluate`, of which the settings below are known."


def _data(result: Result) -> str:
    about = result.settings.get("data")
    if not isinstance(about, Mapping):
        return ""
    return "\n".join(f"### {markdown.escape(name)}\n\n{_facts(known)}" for name, known in about.items())


def _fingerprints(parts: Mapping[str, Kept]) -> str:
    lines = [
        (name, str(part.fingerprint["images"]), part.fingerprint["data_sha256"], part.fingerprint["model_sha256"])
        for name, part in parts.items()
    ]
    return (
        markdown.table(("part", "images", "sha256 of the data", "sha256 of the model"), lines, right=[1])
        if lines
        else ""
    )


def _warnings(result: Result, parts: Mapping[str, Kept]) -> Iterator[str]:
    yield from result.settings.get("warnings", ())
    about = result.settings.get("data")
    for name, known in about.items() if isinstance(about, Mapping) else ():
        if not isinstance(known, Mapping):
            continue
        if "of" in known:
            yield f"{name}: only {known['images']} of {known['of']} images were evaluated."
        if known.get("skipped"):
            yield f"{name}: {known['skipped']} images could not be read and were skipped, e.g. {known['damaged'][0]}"
    for name, part in parts.items():
        if not part.finished:
            yield f"{name} is not finished."
