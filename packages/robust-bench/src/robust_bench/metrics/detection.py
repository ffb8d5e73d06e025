"""How well a score tells anomalous images from ordinary ones."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robust_bench.metrics._columns import Values, check_lengths, numbers, truths


def anomaly_score(logits: Tensor) -> Tensor:
    """Give the ImageNet-O score of every image: minus the largest softmax probability, higher for anomalies.

    Hendrycks & Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
    ICLR 2017, arXiv:1610.02136; on ImageNet-O: Hendrycks et al., "Natural Adversarial Examples", CVPR 2021,
    arXiv:1907.07174.

    Args:
        logits: (N, K) finite floats. ImageNet-O compares over its 200 classes: slice before, `logits[:, indices]`.

    Returns:
        (N,) scores in [-1, -1/K] on the device of the logits, in float32 or, where the logits are, float64.

    Raises:
        TypeError: if `logits` is not a float tensor.
        ValueError: if its shape is wrong, or a value is not finite.

    Examples:
        >>> anomaly_score(torch.tensor([[0.0, 0.0], [30.0, 0.0]]))
        tensor([-0.5000, -1.0000])
    """
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a tensor (N, K), got {type(logits).__name__}")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floats, got {logits.dtype}")
    if logits.ndim != 2 or logits.numel() == 0:
        raise ValueError(f"logits must have the shape (N, K), one row per image, got {tuple(logits.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits must be finite, got NaN or infinite values: check the model's weights and precision")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return -wide.softmax(dim=1).amax(dim=1)


def average_precision(scores: Values, positive: Values) -> float:
    """Give the area under the precision-recall curve (AUPR), as a sum of steps.

    AUPR = sum_n (R_n - R_{n-1}) P_n over the distinct scores as thresholds, from high to low; images of one score are
    accepted together, so that their order is without effect. It is not the trapezoid rule, which is too optimistic
    (Davis & Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006). On ImageNet-O
    (Hendrycks et al., CVPR 2021, arXiv:1907.07174) the out-of-distribution images are positive.

    Args:
        scores: (N,) numbers, higher for positive images; see `anomaly_score`.
        positive: (N,) whether the image is positive; booleans, or 0 and 1. Some must be, and some not.

    Returns:
        A fraction; the share of positive images is chance, 1 a perfect ranking.

    Raises:
        TypeError: if `scores` is not numbers or `positive` not boolean.
        ValueError: if they are empty, of different lengths or NaN, or one of the two groups has no image.

    Examples:
        >>> round(average_precision([0.9, 0.8, 0.8, 0.1], [True, True, False, False]), 4)  # 1/2 * 1 + 1/2 * 2/3
        0.8333
    """
    hits, alarms = _accepted(scores, positive)
    return float(np.diff(hits, prepend=0) @ (hits / (hits + alarms)) / hits[-1])


def auroc(scores: Values, positive: Values) -> float:
    """Give the area under the ROC curve: how often a positive image scores above another one, ties counting half.

    Hanley & McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 143 (1982).

    Args:
        scores: (N,) numbers, higher for positive images; see `anomaly_score`.
        positive: (N,) whether the image is positive; booleans, or 0 and 1. Some must be, and some not.

    Returns:
        A fraction; 0.5 is chance, 1 a perfect ranking.

    Raises:
        TypeError: if `scores` is not numbers or `positive` not boolean.
        ValueError: if they are empty, of different lengths or NaN, or one of the two groups has no image.

    Examples:
        >>> auroc([0.9, 0.8, 0.8, 0.1], [True, True, False, False])  # 3 of 4 pairs in order, one tie
        0.875
    """
    hits, alarms = _accepted(scores, positive)
    above = hits - np.diff(hits, prepend=0) / 2  # positive images above each threshold, and half of those at it
    return float(np.diff(alarms, prepend=0) @ above / (int(hits[-1]) * int(alarms[-1])))


def fpr_at_recall(scores: Values, positive: Values, recall: float = 0.95) -> float:
    """Give the share of the other images that are accepted where the threshold finds 95% of the positive ones (FPR95).

    Liang, Li & Srikant, "Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks", ICLR
    2018, arXiv:1706.02690. The threshold is the highest score at which the recall is at least `recall`; images of one
    score are accepted together. The code behind published ImageNet-O tables takes the recall closest to 0.95 instead,
    which may lie below it.

    Args:
        scores: (N,) numbers, higher for positive images; see `anomaly_score`.
        positive: (N,) whether the image is positive; booleans, or 0 and 1. Some must be, and some not.
        recall: the least share of the positive images to be found, in (0, 1].

    Returns:
        A fraction, 0 for a perfect ranking; about `recall` is chance.

    Raises:
        TypeError: if `scores` is not numbers or `positive` not boolean.
        ValueError: if they are empty, of different lengths or NaN, one of the two groups has no image, or `recall`
            is no share.

    Examples:
        >>> fpr_at_recall([0.9, 0.4, 0.8, 0.1], [True, True, False, False])
        0.5
        >>> fpr_at_recall([0.9, 0.4, 0.8, 0.1], [True, True, False, False], recall=0.5)
        0.0
    """
    if not 0.0 < recall <= 1.0:
        raise ValueError(f"recall must be a share in (0, 1], e.g. 0.95, got {recall}")
    hits, alarms = _accepted(scores, positive)
    first = int(np.argmax(hits / hits[-1] >= recall))
    return float(alarms[first] / alarms[-1])


def _accepted(scores: Values, positive: Values) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count positive and other images at or above every distinct score, from high to low."""
    values = numbers("scores", scores)
    wanted = truths("positive", positive)
    check_lengths(scores=values, positive=wanted)
    found = int(wanted.sum())
    if not 0 < found < len(wanted):
        raise ValueError(
            f"positive must be True for some images and False for others, got {found} of {len(wanted)}: "
            "a detector is judged on both groups together"
        )
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    last_of_its_score = np.append(ranked[1:] != ranked[:-1], True)
    hits = np.cumsum(wanted[order], dtype=np.int64)[last_of_its_score]
    return hits, np.flatnonzero(last_of_its_score) + 1 - hits
