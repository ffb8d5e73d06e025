"""Accuracy when the model may stay silent on the images that it is least sure of."""

import numpy as np

from robust_bench.metrics._columns import Values, check_lengths, confidences, truths


def aurra(confidence: Values, correct: Values) -> float:
    """Give the area under the curve of accuracy against response rate.

    Hendrycks, Zhao, Basart, Steinhardt & Song, "Natural Adversarial Examples", CVPR 2021, arXiv:1907.07174: the mean
    over k = 1..N of the accuracy on the k most confident images. Images of equal confidence stay in the order in
    which they are given (a stable sort), which the fifth digit may show; the published code leaves it to the sort.

    Args:
        confidence: (N,) largest softmax probability of every image, in [0, 1].
        correct: (N,) whether the prediction is right; booleans, or 0 and 1.

    Returns:
        A fraction: the accuracy if confidence says nothing about being right, more if it does.

    Raises:
        TypeError: if `confidence` is not numbers or `correct` not boolean.
        ValueError: if they are empty, of different lengths, NaN or out of range.

    Examples:
        >>> round(aurra([0.9, 0.6, 0.8], [True, True, False]), 4)  # the mean of 1, 1/2 and 2/3
        0.7222
    """
    confident = confidences("confidence", confidence)
    right = truths("correct", correct)
    check_lengths(confidence=confident, correct=right)
    order = np.argsort(-confident, kind="stable")
    return float(np.mean(np.cumsum(right[order]) / np.arange(1, len(right) + 1)))
