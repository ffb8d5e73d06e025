"""Scores of the analyses of attacks, occlusion and attention, from the answers about all images."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robust_bench.answers import Answers
from robust_bench.benchmarks.score_row import score_row
from robust_bench.conditions.attention_similarity import LAYERS, SIMILARITY
from robust_bench.conditions.occluded import right_per_mask
from robust_bench.conditions.repeated import loss_column
from robust_bench.conditions.semantic import judged_column
from robust_bench.metrics import (
    AttackEffectiveness,
    BootstrapInterval,
    attack_effectiveness,
    bootstrap,
    bootstrap_means,
    clopper_pearson,
    mcnemar,
)
from robust_bench.result import Row

DETAILS = "details"
"""The setting of a score's row that holds what was found beside its value, such as a histogram."""

_SIGNIFICANT = 0.05
_BINS = 20
_HARDLY = 1e-6  # the last digit of a loss in the records

QUANTILES: Mapping[str, float] = {
    "minimum": 0.0,
    "lower quartile": 0.25,
    "median": 0.5,
    "upper quartile": 0.75,
    "maximum": 1.0,
}
"""The statistics of a box plot."""


def steps_scores(answers: Sequence[Answers]) -> Iterator[Row]:
    """Tell whether a curve of accuracy over steps still falls at its end, where robustness would not be genuine.

    Orhan, 2019, arXiv:1907.07640. The fall from the last point but one to the last is the difference of two accuracies
    on the same images, with the interval and the p value of McNemar's test; it still falls where p is below 0.05.
    """
    if len(answers) < 2 or not len(answers[-1].ids):
        return
    before, last = answers[-2:]
    found = mcnemar(before.right, last.right)
    falls = found.difference > 0 and found.p_value < _SIGNIFICANT
    text = f"from {before.settings['steps']} to {last.settings['steps']} steps"
    details: dict[str, Any] = {"p_value": found.p_value, "still_falling": falls}
    if falls:
        details["warning"] = (
            "the accuracy still falls at the end of the curve: the robustness is not genuine, more steps or a stronger "
            "attack will find less"
        )
    yield Row(
        benchmark=last.benchmark,
        condition=text,
        settings={"kind": "score", "of": _attack(last), "interval": {"method": "Tango"}, DETAILS: details},
        metric="accuracy_fall",
        value=found.difference,
        low=found.low,
        high=found.high,
        count=found.count,
    )


def effectiveness_scores(answers: Sequence[Answers]) -> Iterator[Row]:
    """Compare the mean losses of short attacks with that of the last and longest, the oracle.

    Debenedetti, Sehwag & Mittal, SaTML 2023, arXiv:2209.07399, section V-A, equation 2: see
    `robust_bench.metrics.attack_effectiveness`. The score is the mean over starts, of which the sample standard
    deviation is given, too; its interval is bootstrapped over images.
    """
    yield from loss_scores(answers)
    if len(answers) < 2 or not len(answers[-1].ids):
        return
    oracle = _losses(answers[-1])
    for each in answers[:-1]:
        losses = _losses(each)
        effects = _effects(losses.mean(axis=0).tolist(), oracle.mean(axis=0).tolist())
        gaps, ratios = [effect.relative_difference for effect in effects], [effect.ratio for effect in effects]
        settings = {"of": _attack(each), "oracle_steps": answers[-1].settings["steps"]}
        for metric, unit, values, statistic in (
            ("attack_effectiveness", "fraction", gaps, _mean_gap),
            ("attack_effectiveness_ratio", "number", ratios, _mean_ratio),
        ):
            yield score_row(
                benchmark=each.benchmark,
                condition=f"{each.condition}, against {answers[-1].settings['steps']} steps",
                settings=settings | {DETAILS: {"starts": values, "deviation": _deviation(values)}},
                metric=metric,
                unit=unit,
                value=statistics.fmean(values),
                count=len(losses),
                interval=_interval({"short": losses, "oracle": oracle}, statistic),
            )


def convergence_scores(answers: Sequence[Answers]) -> Iterator[Row]:
    """Give the mean loss after every number of steps, and its spread over the random starts.

    Debenedetti, Sehwag & Mittal, SaTML 2023, arXiv:2209.07399, section V-A. The spread is the sample standard deviation
    over the starts of an image, in the mean over images.
    """
    yield from loss_scores(answers)
    for each in answers:
        losses = _losses(each)
        if len(losses) and losses.shape[1] > 1:
            spread = losses.std(axis=1, ddof=1)
            yield score_row(
                benchmark=each.benchmark,
                condition=each.condition,
                settings={"of": _attack(each)},
                metric="loss_spread",
                unit="nats",
                value=float(spread.mean()),
                count=len(spread),
                interval=_interval({"spread": spread}, lambda means: means["spread"]),
            )


def loss_scores(answers: Sequence[Answers]) -> Iterator[Row]:
    """Give the mean cross-entropy over images and starts under every condition."""
    for each in answers:
        losses = _losses(each).mean(axis=1)
        if len(losses):
            yield score_row(
                benchmark=each.benchmark,
                condition=each.condition,
                settings={"of": _attack(each)},
                metric="loss",
                unit="nats",
                value=float(losses.mean()),
                count=len(losses),
                interval=_interval({"loss": losses}, lambda means: means["loss"]),
            )


def semantic_scores(answers: Sequence[Answers]) -> Iterator[Row]:
    """Give, for every judge, the share of perturbations in which it sees the true class of the image.

    Debenedetti, Sehwag & Mittal, SaTML 2023, arXiv:2209.07399, section V-B.
    """
    for each in answers:
        count = len(each.ids)
        for judge, judge_hash in each.settings["judges"].items():
            if not count:
                continue
            correct = int((each.more[judged_column(judge)] == each.labels).sum())
            low, high = clopper_pearson(correct, count)
            yield Row(
                benchmark=each.benchmark,
                condition=f"perturbations judged by {judge}",
                settings={
                    "kind": "score",
                    "of": {key: value for key, value in each.settings.items() if key not in ("kind", "judges")},
                    "judge": judge,
                    "judge_sha256": judge_hash,
                    "interval": {"method": "Clopper-Pearson"},
                },
                metric="semantic_accuracy",
                value=correct / count,
                low=low,
                high=high,
                count=count,
            )


def occlusion_scores(answers: Sequence[Answers]) -> Iterator[Row]:
    """Give the distribution of the accuracies under the masks: minimum, quartiles, maximum and mean.

    Guo, Stutz & Schiele (RSPC), CVPR 2023, Figure 2: accuracy number k uses mask k of every image. Quartiles are
    interpolated linearly; intervals are bootstrapped over images. The worst case of every image is the accuracy of the
    condition itself.
    """
    for each in answers:
        if not len(each.ids):
            continue
        right = right_per_mask(each.more, each.settings["masks"])
        accuracies = right.mean(axis=0)
        of = _attack(each)
        for name, share in QUANTILES.items():
            yield score_row(
                benchmark=each.benchmark,
                condition=f"{_occlusion(each)}: {name}",
                settings={"of": of, "statistic": name},
                metric="accuracy_over_masks",
                value=float(np.quantile(accuracies, share)),
                count=len(right),
                interval=_interval({"right": right}, _quantile(share)),
            )
        yield score_row(
            benchmark=each.benchmark,
            condition=f"{_occlusion(each)}: mean",
            settings={"of": of, "statistic": "mean", DETAILS: {"accuracies": accuracies.tolist()}},
            metric="accuracy_over_masks",
            value=float(accuracies.mean()),
            count=len(right),
            interval=_interval({"right": right}, lambda means: statistics.fmean(means["right"])),
        )


def attention_scores(answers: Sequence[Answers]) -> Iterator[Row]:
    """Give the mean similarity of attention maps over images with its histogram, and the lowest.

    Guo, Stutz & Schiele (RSPC), CVPR 2023, Figure 5.
    """
    for each in answers:
        similarity = np.asarray(each.more[SIMILARITY], dtype=np.float64)
        if not len(similarity):
            continue
        counts, edges = np.histogram(similarity.clip(0.0, 1.0), bins=_BINS, range=(0.0, 1.0))
        details = {
            "layers": int(each.more[LAYERS][0]),
            "histogram": {"edges": [round(float(edge), 6) for edge in edges], "counts": counts.tolist()},
        }
        of = _attack(each)
        yield score_row(
            benchmark=each.benchmark,
            condition=f"{each.condition}: mean",
            settings={"of": of, "statistic": "mean", DETAILS: details},
            metric="attention_similarity",
            unit="number",
            value=float(similarity.mean()),
            count=len(similarity),
            interval=_interval({"similarity": similarity}, lambda means: means["similarity"]),
        )
        yield score_row(
            benchmark=each.benchmark,
            condition=f"{each.condition}: lowest",
            settings={"of": of, "statistic": "minimum", DETAILS: {"image": int(each.ids[similarity.argmin()])}},
            metric="attention_similarity",
            unit="number",
            value=float(similarity.min()),
            count=len(similarity),
            interval=None
            if len(similarity) < 2
            else bootstrap((torch.from_numpy(similarity),), lambda some: float(some.min())),
        )


def _attack(answers: Answers) -> dict[str, Any]:
    """What a score is of, but for the kind."""
    return {key: value for key, value in answers.settings.items() if key != "kind"}


def _occlusion(answers: Answers) -> str:
    known = answers.settings
    return f"{100 * known['share']:g} % of patches of {known['patch_size']} px occluded, {known['masks']} masks"


def _losses(answers: Answers) -> npt.NDArray[np.float64]:
    """The losses after every start, (n, starts)."""
    starts = range(answers.settings["starts"])
    if not len(answers.ids):
        return np.empty((0, len(starts)))
    return np.stack([np.asarray(answers.more[loss_column(start)], dtype=np.float64) for start in starts], axis=1)


def _interval(values: Mapping[str, npt.NDArray[Any]], statistic: Callable[[Any], float]) -> BootstrapInterval | None:
    """The interval over images of a score of means; None for fewer than two images."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in values.items()}
    return None if len(next(iter(tensors.values()))) < 2 else bootstrap_means(tensors, statistic)


def _effects(short: Sequence[float], oracle: Sequence[float]) -> list[AttackEffectiveness]:
    """The effectiveness by start; an oracle without any loss counts as one of hardly any."""
    return [attack_effectiveness(some, max(most, _HARDLY)) for some, most in zip(short, oracle, strict=True)]


def _mean_gap(means: Mapping[str, Sequence[float]]) -> float:
    return statistics.fmean(effect.relative_difference for effect in _effects(means["short"], means["oracle"]))


def _mean_ratio(means: Mapping[str, Sequence[float]]) -> float:
    return statistics.fmean(effect.ratio for effect in _effects(means["short"], means["oracle"]))


def _quantile(share: float) -> Callable[[Any], float]:
    return lambda means: float(np.quantile(means["right"], share))


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
