"""From the parts that separate jobs have left to a result."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_bench import benchmarks
from robust_bench.answers import Answers
from robust_bench.evaluate import merged_data, without_repeats
from robust_bench.kept import EVALUATIONS, begun
from robust_bench.listening import remembered
from robust_bench.report.run_folder import RESULT_FILE
from robust_bench.result import Result, Row
from robust_bench.shards import EVALUATION, Shards


def merge(out: Path) -> tuple[Result, ...]:
    """Put the parts that separate jobs have left in a run folder together, and write `result.json` of every model.

    Raises:
        FileNotFoundError: if there is no evaluation.
        ValueError: if shards are missing, or a file is damaged.
    """
    folders = [out] if (out / EVALUATIONS).is_dir() else sorted(path.parent for path in out.glob(f"*/{EVALUATIONS}"))
    if not folders:
        raise FileNotFoundError(
            f"no evaluations in {out}: `robust-bench run --shard i/n --out {out}` leaves them there"
        )
    return tuple(_merged(folder) for folder in folders)


def _merged(run: Path) -> Result:
    """Put the parts of one model together."""
    parts = begun(run)
    ended = {name: part.folder / EVALUATION for name, part in parts.items() if (part.folder / EVALUATION).is_file()}
    found = {name: Result.load(file) for name, file in ended.items()}
    if not found:
        raise FileNotFoundError(f"no job has come to an end in {run}: start any of them again, it takes up the rest")
    last = max(found.values(), key=lambda result: result.created).settings
    if lacking := [name for name in last["parts"] if name not in found]:
        raise ValueError(
            f"{run} lacks {len(lacking)} of {len(last['parts'])} parts, e.g. {lacking[0]}: start any job again"
        )
    results, answers = [], {}
    told: list[str] = []
    for name in last["parts"]:
        part = parts[name]
        shards = Shards.found(part.folder)
        shards.merge()
        results.append(_counted(found[name], shards))
        told += [text for text in remembered(part.folder) if text not in told]
        answers[name] = part.answers()
    names = last["benchmarks"]
    shown = [
        found if found.settings.get("accuracy", True) else dataclasses.replace(found, rows=()) for found in results
    ]
    result = join(shown, ",".join(names))
    told += [benchmarks.entry(name).unmerged for name in names if benchmarks.entry(name).unmerged]
    settings = {key: value for key, value in result.settings.items() if key not in ("accuracy", "warnings")}
    result = dataclasses.replace(
        result,
        rows=(*result.rows, *_scores(names, answers)),
        settings=settings | ({"warnings": told} if told else {}),
    )
    result.save(run / RESULT_FILE)
    return result


def _scores(names: Sequence[str], found: Mapping[str, tuple[Answers, ...]]) -> list[Row]:
    entries = (benchmarks.entry(name) for name in names)
    return without_repeats([row for entry in entries if entry.scores is not None for row in entry.scores(found)])


def _counted(result: Result, shards: Shards) -> Result:
    """The result of all shards, from one of some of them."""
    summaries = shards.summaries()
    images = sum(summary.images for summary in summaries)
    skipped = sum(summary.skipped for summary in summaries)
    rows = tuple(
        Row.accuracy(
            benchmark=row.benchmark,
            condition=row.condition,
            settings=row.settings,
            correct=sum(summary.correct[number] for summary in summaries),
            count=images,
            seconds=sum(summary.seconds[number] for summary in summaries),
        )
        for number, row in enumerate(result.rows)
    )
    data = {
        name: {key: value for key, value in about.items() if key not in ("of", "skipped", "damaged")}
        | {"images": images}
        | ({"skipped": skipped, "damaged": shards.damaged()[:10]} if skipped else {})
        for name, about in result.settings["data"].items()
    }
    return dataclasses.replace(result, rows=rows, settings={**result.settings, "data": data})


def join(results: list[Result], benchmark: str) -> Result:
    """Put the results of one model into one, whose `benchmark` says what was asked for.

    Raises:
        ValueError: if there are none.
    """
    if not results:
        raise ValueError("there is no result to join")
    data: dict[str, Any] = {}
    for result in results:
        for name, about in result.settings["data"].items():
            data[name] = merged_data(data[name], about) if name in data else about
    return dataclasses.replace(
        results[-1],
        benchmark=benchmark,
        rows=tuple(row for result in results for row in result.rows),
        settings={**results[-1].settings, "data": data},
    )
