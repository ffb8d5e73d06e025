"""Is one model really better than another? Two runs on the same images, image by image."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robust_bench.answers import Answers
from robust_bench.comparison import AccuracyDifference, Comparison
from robust_bench.kept import Kept, kept
from robust_bench.metrics.holm import holm
from robust_bench.metrics.mcnemar import mcnemar
from robust_bench.paired import Pair
from robust_bench.paired_scores import score_differences
from robust_bench.report.run_folder import RESULT_FILE
from robust_bench.result import Result
from robust_bench.tables import ACCURACY

Names = tuple[str, ...] | None


def compare(a: str | Path, b: str | Path, *, resamples: int = 1000) -> Comparison:
    """Compare two runs in everything that both have evaluated on the same images with the same settings.

    Accuracies are compared by McNemar's exact test, whose p values are adjusted by Holm and Bonferroni for the number
    of all accuracies that are compared; scores, such as mCE, by the paired bootstrap over images. Images are matched by
    their id, and their labels and file names must agree. Two models may each have a preprocessing of their own, where
    the images are files whose names tell that they are the same.

    Args:
        a: the first run folder, with result.json and evaluations/.
        b: the second.
        resamples: of the bootstrap.

    Returns:
        The differences, a - b, with what was left out.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if a part of the same name has other data or other images, which are named, or the runs have nothing
            in common.
    """
    results = Result.load(Path(a) / RESULT_FILE), Result.load(Path(b) / RESULT_FILE)
    ours, theirs = kept(Path(a)), kept(Path(b))
    left_out = [*_alone(ours, theirs, "a"), *_alone(theirs, ours, "b")]
    pairs: list[Pair] = []
    names: dict[Names, Names] = {}
    notes = _warnings(*results)
    for name in dict.fromkeys((*results[0].settings.get("parts", ()), *ours)):
        if name in ours and name in theirs:
            found, reasons, more = _pairs(ours[name], theirs[name])
            pairs += [_sharing(pair, names) for pair in found]
            left_out += reasons
            notes += more
    if not pairs:
        raise ValueError(
            f"{a} and {b} have no condition in common ({'; '.join(left_out)}): give both runs the same --benchmarks"
        )
    scores, reasons = score_differences(*results, pairs, resamples=resamples)
    return Comparison(
        a=results[0].model,
        b=results[1].model,
        accuracies=_accuracies(pairs),
        scores=tuple(scores),
        left_out=(*left_out, *reasons),
        warnings=tuple(dict.fromkeys(notes)),
    )


def _alone(mine: Mapping[str, Kept], other: Mapping[str, Kept], run: str) -> list[str]:
    """The parts that only one run has, those of one benchmark together."""
    groups: dict[str, list[str]] = {}
    for name in mine:
        if name not in other:
            groups.setdefault(name.partition("/")[0], []).append(name)
    return [
        f"{names[0] if len(names) == 1 else f'{len(names)} parts of {group}'}: only in {run}"
        for group, names in groups.items()
    ]


def _sharing(pair: Pair, names: dict[Names, Names]) -> Pair:
    """The same pair with names that are held once, since the 75 cells of ImageNet-C have the same ones."""
    one = names.setdefault(pair.a.names, pair.a.names)
    return replace(pair, a=replace(pair.a, names=one), b=replace(pair.b, names=one))


def _accuracies(pairs: list[Pair]) -> tuple[AccuracyDifference, ...]:
    found = []
    for pair in pairs:
        test = mcnemar(pair.a.right, pair.b.right)
        found.append(
            AccuracyDifference(
                part=pair.part,
                benchmark=pair.a.benchmark,
                condition=pair.a.condition,
                settings=pair.a.settings,
                count=test.count,
                a=float(pair.a.right.mean()),
                b=float(pair.b.right.mean()),
                difference=test.difference,
                low=test.low,
                high=test.high,
                only_a=test.only_a,
                only_b=test.only_b,
                p_value=test.p_value,
                adjusted_p_value=test.p_value,
            )
        )
    adjusted = holm([each.p_value for each in found])
    return tuple(replace(each, adjusted_p_value=value) for each, value in zip(found, adjusted, strict=True))


def _pairs(a: Kept, b: Kept) -> tuple[list[Pair], list[str], list[str]]:
    """The answers under all conditions that a part has in both runs, what was left out, and warnings."""
    for each, run in ((a, "a"), (b, "b")):
        if not each.finished:
            return [], [f"{a.name}: not finished in {run}"], []
    mine, other = a.fingerprint, b.fingerprint
    if mine.get("answer") != other.get("answer"):
        reason = f"{a.name}: the answer is {mine.get('answer')} in a and {other.get('answer')} in b"
        return [], [reason], []
    own = _check_data(a.name, mine, other)
    ours, theirs = a.answers(), b.answers()
    _check_images(a.name, ours[0], theirs[0], need_names=mine["data_sha256"] != other["data_sha256"])
    keys = [json.dumps(condition, sort_keys=True) for condition in other["conditions"]]
    pairs, left_out = [], []
    for answers, row, condition in zip(ours, a.rows, mine["conditions"], strict=True):
        key = json.dumps(condition, sort_keys=True)
        if row.metric != ACCURACY:
            left_out.append(f"{a.name}, {row.condition}: no accuracy but {row.metric}")
        elif key in keys:
            pairs.append(Pair(part=a.name, a=answers, b=theirs[keys.index(key)]))
            keys[keys.index(key)] = ""
        else:
            left_out.append(f"{a.name}, {row.condition}: only in a")
    left_out += [f"{a.name}, {row.condition}: only in b" for row, key in zip(b.rows, keys, strict=True) if key]
    notes = []
    if mine.get("seed") != other.get("seed"):
        notes.append(
            f"the runs have the seeds {mine.get('seed')} and {other.get('seed')}: attacks and corruptions that were "
            "generated drew other numbers"
        )
    if own:
        notes.append(f"{a.rows[0].benchmark}: each model has a preprocessing of its own")
    return pairs, left_out, notes


def _check_data(part: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Make sure that two fingerprints are of the same data; whether each model has a preprocessing of its own.

    Raises:
        ValueError: if the data differ; what differs is named.
    """
    mine, other = ({"images": each["images"], **each["data"]} for each in (a, b))
    own = bool(mine.pop("preprocessing", None) != other.pop("preprocessing", None))
    differ = [key for key in dict.fromkeys((*mine, *other)) if mine.get(key) != other.get(key)]
    if not differ and not own and a["data_sha256"] != b["data_sha256"]:
        mine["sha256"], other["sha256"] = a["data_sha256"], b["data_sha256"]
        differ = ["sha256"]
    if differ:
        words = "; ".join(f"{key} is {_json(mine.get(key))} in a, {_json(other.get(key))} in b" for key in differ)
        raise ValueError(f"the runs have other data in {part!r}: {words}. Only runs on the same images can be compared")
    return own


def _check_images(part: str, a: Answers, b: Answers, *, need_names: bool) -> None:
    """Make sure that two models saw the same images.

    Raises:
        ValueError: if they did not; the first that differs is named.
    """
    if odd := np.setxor1d(a.ids, b.ids).tolist():
        run = "b" if odd[0] in a.ids else "a"
        raise ValueError(
            f"the runs saw other images of {part!r}: {run} lacks image {odd[0]}"
            + (f" and {len(odd) - 1} more differ" if len(odd) > 1 else "")
            + ". Were damaged images skipped in one of them?"
        )
    for position in np.flatnonzero(a.labels != b.labels)[:1].tolist():
        raise ValueError(
            f"image {a.ids[position]} of {part!r} has the label {a.labels[position]} in a, {b.labels[position]} in b: "
            "the data are not the same"
        )
    if a.names is None or b.names is None:
        if need_names:
            raise ValueError(
                f"the runs have other preprocessing of {part!r}, and no file names tell that the images are the same: "
                "give both the same preprocessing"
            )
        return
    for id_, one, other in zip(a.ids.tolist(), a.names, b.names, strict=True):
        if one != other:
            raise ValueError(f"image {id_} of {part!r} is {one!r} in a, {other!r} in b: the data are not the same")


def _warnings(a: Result, b: Result) -> list[str]:
    mine, other = (each.settings.get("model") for each in (a, b))
    if not isinstance(mine, Mapping) or not isinstance(other, Mapping) or mine.get("spec") != other.get("spec"):
        return []
    if all(mine.get(key) == other.get(key) for key in ("sha256", "pretrained")):
        return []
    return [
        f"both runs are of {mine.get('spec')} with other weights: a checkpoint that is picked by its score on a test "
        "set is no longer judged fairly by that set; choose on other images, and report both"
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
