"""What an adversarial copy of a data set says of itself."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from robust_bench.conditions import Attacked, Clean, Suite
from robust_bench.copies import Copies
from robust_bench.copying import SHARE
from robust_bench.result import Result, Row
from robust_bench.shards import Summary
from robust_bench.versions import versions

_ROUNDING = {
    "Linf": "every pixel to the nearest grey level inside the ball",
    "L2": "the change is scaled until its rounded length fills the ball, and rounded to whole grey levels",
    "L1": "the change is scaled until its rounded length fills the ball, and rounded to whole grey levels",
}
_STAGES = ("clean", "adversarial", "written")


def files_settings(form: str, norm: str) -> dict[str, Any]:
    """Say what is in the files of a copy."""
    if form == "npy":
        return {"format": form, "values": "float32 (C, H, W) in [0, 1]", "rounding": None}
    return {"format": form, "values": "8 bits", "rounding": _ROUNDING[norm]}


def copy_result(
    attack: Attacked | Suite, summaries: Sequence[Summary], *, model: str, seed: int, settings: Mapping[str, Any]
) -> Result:
    """Give the accuracy on the clean images, the adversarial ones, and those in the files.

    Args:
        attack: the attack.
        summaries: of the finished shards.
        model: its name.
        seed: of the attack's random draws.
        settings: further JSON values; "files" says what is in the files.
    """
    form = settings["files"]["format"]
    conditions = (
        (Clean.label, Clean().settings),
        (attack.label, attack.settings),
        (f"{attack.label}, as .{form}", attack.settings | {"files": settings["files"]}),
    )
    count = sum(summary.images for summary in summaries)
    rows = [
        Row.accuracy(
            benchmark="folder",
            condition=label,
            settings=about,
            correct=sum(summary.correct[number] for summary in summaries),
            count=count,
            seconds=sum(summary.seconds[number] for summary in summaries),
        )
        for number, (label, about) in enumerate(conditions if count else ())
    ]
    return Result(
        model=model,
        benchmark="folder",
        seed=seed,
        rows=tuple(rows),
        versions=versions(),
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        settings=settings,
    )


def document(result: Result) -> dict[str, Any]:
    """Give what `perturb.json` says, from the result of a copy that is complete."""
    accuracy = {
        stage: {name: getattr(row, name) for name in ("condition", "value", "low", "high", "correct", "count")}
        for stage, row in zip(_STAGES, result.rows, strict=True)
    }
    seconds = {stage: round(row.seconds, 3) for stage, row in zip(_STAGES, result.rows, strict=True)}
    return {
        "created": result.created,
        **result.settings,
        "seed": result.seed,
        "accuracy": accuracy,
        "seconds": seconds,
        "versions": dict(result.versions),
    }


def image_lines(copies: Copies, eps: float) -> Iterator[dict[str, Any]]:
    """Give what is known of every image: its files, its label, the predictions, and how far it was moved.

    The distance is in units of [0, 1] pixels, known to a millionth of eps.
    """
    for seen in copies.shards.records():
        yield {
            "id": seen.id,
            "name": copies.names[seen.id],
            "source": seen.name,
            "class": PurePosixPath(copies.names[seen.id]).parent.name,
            "label": seen.label,
            "predictions": dict(zip(_STAGES, seen.predictions, strict=True)),
            "distance": seen.more[-1][SHARE] * eps,
        }
