"""Scores of how sure a model was, and whether it was right."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from robust_bench.answers import Answers
from robust_bench.benchmarks.score_row import score_row
from robust_bench.metrics import aurra, bootstrap, mean_absolute_calibration_error, rms_calibration_error
from robust_bench.result import Row

CALIBRATION: Mapping[str, Callable[[Tensor, Tensor], float]] = {
    "rms_calibration_error": rms_calibration_error,
    "mean_absolute_calibration_error": mean_absolute_calibration_error,
}
"""How far confidence is from accuracy, by the metric's name."""

SILENCE: Mapping[str, Callable[[Tensor, Tensor], float]] = {"aurra": aurra}
"""What is gained if the model may stay silent where it is least sure, by the metric's name."""


def confidence_scores(answers: Answers, statistics: Mapping[str, Callable[[Tensor, Tensor], float]]) -> Iterator[Row]:
    """Give scores of (confidence, right) with intervals over images; nothing of fewer than two.

    Args:
        answers: about the images.
        statistics: by the metric's name.
    """
    if len(answers) < 2:
        return
    columns = torch.from_numpy(answers.confidences), torch.from_numpy(answers.right)
    for metric, statistic in statistics.items():
        found = bootstrap(columns, statistic)
        yield score_row(
            benchmark=answers.benchmark,
            condition=answers.condition,
            settings={},
            metric=metric,
            value=found.value,
            count=len(answers),
            interval=found,
        )
