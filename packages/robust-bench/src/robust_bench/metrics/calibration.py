"""How far confidence is from accuracy, over bins of images of similar confidence."""

import math

import numpy as np
import numpy.typing as npt

from robust_bench.metrics._columns import Values, check_lengths, confidences, truths


def rms_calibration_error(confidence: Values, correct: Values, bin_size: int = 100, drop_last: bool = False) -> float:
    """Give the root of the mean squared difference between confidence and accuracy.

    Hendrycks, Zhao, Basart, Steinhardt & Song, "Natural Adversarial Examples", CVPR 2021, arXiv:1907.07174, after
    Hendrycks, Mazeika & Dietterich, "Deep Anomaly Detection with Outlier Exposure", ICLR 2019, arXiv:1812.04606.
    The images are sorted by confidence (equal ones stay in their order) and cut into bins b of `bin_size`; what
    remains joins the last bin, and fewer images than `bin_size` are one bin. Then

        sqrt(sum_b n_b / N (mean confidence_b - accuracy_b)^2).

    Args:
        confidence: (N,) largest softmax probability of every image, in [0, 1].
        correct: (N,) whether the prediction is right; booleans, or 0 and 1.
        bin_size: images per bin, at least 1.
        drop_last: leave out the last, most confident bin but keep N, as the code behind the published ImageNet-A
            tables does: fewer than 2 * `bin_size` images then give 0. False is the definition.

    Returns:
        A fraction, 0 for perfect calibration.

    Raises:
        TypeError: if `confidence` is not numbers, `correct` not boolean, or `bin_size` not an integer.
        ValueError: if they are empty, of different lengths, NaN or out of range.

    Examples:
        >>> rms_calibration_error([0.9, 0.6, 0.8, 0.7], [True, False, True, True])
        0.0
        >>> round(rms_calibration_error([0.9, 0.6, 0.8, 0.7], [True, False, True, True], bin_size=2), 4)
        0.15
    """
    weights, gaps = _bins(confidence, correct, bin_size, drop_last)
    return math.sqrt(float(weights @ gaps**2))


def mean_absolute_calibration_error(
    confidence: Values, correct: Values, bin_size: int = 100, drop_last: bool = False
) -> float:
    """Give the mean absolute difference (MAD) between confidence and accuracy.

    Hendrycks, Mazeika & Dietterich, "Deep Anomaly Detection with Outlier Exposure", ICLR 2019, arXiv:1812.04606. The
    bins are those of `rms_calibration_error`: sum_b n_b / N |mean confidence_b - accuracy_b|. It is also called the
    expected calibration error, which however is mostly computed over bins of equal width instead of equal size.

    Args:
        confidence: (N,) largest softmax probability of every image, in [0, 1].
        correct: (N,) whether the prediction is right; booleans, or 0 and 1.
        bin_size: images per bin, at least 1.
        drop_last: leave out the last bin, see `rms_calibration_error`.

    Returns:
        A fraction, 0 for perfect calibration; never above the RMS calibration error.

    Raises:
        TypeError: if `confidence` is not numbers, `correct` not boolean, or `bin_size` not an integer.
        ValueError: if they are empty, of different lengths, NaN or out of range.

    Examples:
        >>> round(mean_absolute_calibration_error([0.9, 0.6, 0.8, 0.7], [True, False, True, True], bin_size=2), 4)
        0.15
    """
    weights, gaps = _bins(confidence, correct, bin_size, drop_last)
    return float(weights @ gaps)


def max_calibration_error(confidence: Values, correct: Values, bin_size: int = 100, drop_last: bool = False) -> float:
    """Give the largest difference between confidence and accuracy in any bin.

    Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015. The bins
    are those of `rms_calibration_error` (there: of equal width): max_b |mean confidence_b - accuracy_b|.

    Args:
        confidence: (N,) largest softmax probability of every image, in [0, 1].
        correct: (N,) whether the prediction is right; booleans, or 0 and 1.
        bin_size: images per bin, at least 1.
        drop_last: leave out the last bin, see `rms_calibration_error`.

    Returns:
        A fraction, 0 for perfect calibration; never below the RMS calibration error.

    Raises:
        TypeError: if `confidence` is not numbers, `correct` not boolean, or `bin_size` not an integer.
        ValueError: if they are empty, of different lengths, NaN or out of range.

    Examples:
        >>> round(max_calibration_error([0.9, 0.6, 0.8, 0.7], [True, False, True, True], bin_size=1), 4)
        0.6
    """
    return float(_bins(confidence, correct, bin_size, drop_last)[1].max(initial=0.0))


def _bins(
    confidence: Values, correct: Values, bin_size: int, drop_last: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give the share of all images in every bin, and its |mean confidence - accuracy|."""
    confident = confidences("confidence", confidence)
    right = truths("correct", correct)
    check_lengths(confidence=confident, correct=right)
    if isinstance(bin_size, bool) or not isinstance(bin_size, int):
        raise TypeError(f"bin_size must be an integer number of images, got {type(bin_size).__name__}")
    if bin_size < 1:
        raise ValueError(f"bin_size must be at least 1 image, got {bin_size}")
    count = len(confident)
    order = np.argsort(confident, kind="stable")
    starts = np.arange(max(1, count // bin_size)) * bin_size
    sizes = np.diff(starts, append=count)
    gaps = np.abs(np.add.reduceat(confident[order] - right[order], starts)) / sizes
    kept = len(starts) - 1 if drop_last else len(starts)
    return (sizes / count)[:kept], gaps[:kept]
