"""Corruption errors: how often a model is wrong on corrupted images, alone and relative to AlexNet."""

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import Any

from robust_bench.metrics._rates import Rates, averages, beside, check_rate, ratio
from robust_bench.metrics.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS

NOISES = ("gaussian_noise", "shot_noise", "impulse_noise")
"""The three corruptions that `mean_corruption_error_without_noise` leaves out."""


def corruption_errors(errors: Rates, baseline: Rates = ALEXNET_ERRORS) -> dict[str, float]:
    """Divide the error on every corruption, summed over severities, by that of the baseline.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261: CE_c = sum_s E_{c,s} / sum_s E^AlexNet_{c,s}.

    Args:
        errors: top-1 error per corruption, a fraction in [0, 1]: the mean over the severities, or one value per
            severity. Exactly the baseline's corruptions: a missing one is an error and never left out of a mean, and so
            is one that the baseline lacks, such as the four extra ones of ImageNet-C, which are not part of mCE.
        baseline: the same of the model to compare with; AlexNet's errors are those on ImageNet-C and on nothing else.

    Returns:
        CE per corruption as a fraction (1 = as wrong as the baseline), in the baseline's order.

    Raises:
        TypeError: if something is not a mapping of numbers.
        ValueError: if a corruption is missing or unknown, a value is NaN or outside [0, 1] (most likely per cent), the
            numbers of severities differ, or a baseline is 0. The message names the corruption.

    Examples:
        >>> corruption_errors({"fog": [0.1, 0.3], "snow": 0.4}, baseline={"fog": [0.3, 0.5], "snow": [0.7, 0.9]})
        {'fog': 0.5, 'snow': 0.5}
    """
    pairs = beside(errors, baseline, called="errors")
    return {name: ratio(error, base, name) for name, (error, base) in pairs.items()}


def mean_corruption_error(errors: Rates, baseline: Rates = ALEXNET_ERRORS) -> float:
    """Average the corruption errors (mCE): 1 is as wrong as AlexNet, 0 never wrong.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261. For the unnormalised mean that papers on CIFAR-C
    call mCE see `mean_error`.

    Args:
        errors: top-1 error per corruption, as in `corruption_errors`; all 15 of ImageNet-C with the default baseline.
        baseline: the same of the model to compare with.

    Returns:
        mCE as a fraction: 0.767 where papers print 76.7.

    Raises:
        TypeError: as `corruption_errors`.
        ValueError: as `corruption_errors`; a corruption that is missing too, since a mean over fewer is another score.

    Examples:
        >>> mean_corruption_error(ALEXNET_ERRORS)
        1.0
    """
    return fmean(corruption_errors(errors, baseline).values())


def mean_corruption_error_without_noise(errors: Rates, baseline: Rates = ALEXNET_ERRORS) -> float:
    """Average the corruption errors of all corruptions but gaussian, shot and impulse noise.

    For models trained with noise, whose mCE says little about other corruptions: Rusak et al., "A simple way to make
    neural networks robust against diverse image corruptions", ECCV 2020, arXiv:2001.06057.

    Args:
        errors: top-1 error per corruption, as in `corruption_errors`; the three noises may be there and are not used.
        baseline: the same of the model to compare with; the three noises are not used.

    Returns:
        The mean over the other 12 as a fraction.

    Raises:
        TypeError: as `corruption_errors`.
        ValueError: as `corruption_errors`, for the corruptions that are used.

    Examples:
        >>> mean_corruption_error_without_noise({**ALEXNET_ERRORS, "gaussian_noise": 0.1})
        1.0
    """
    return mean_corruption_error(_without_noise(errors), _without_noise(baseline))


def relative_corruption_errors(
    errors: Rates,
    clean_error: float,
    baseline: Rates = ALEXNET_ERRORS,
    baseline_clean_error: float = ALEXNET_CLEAN_ERROR,
) -> dict[str, float]:
    """Divide what a corruption adds to the clean error by what it adds for the baseline.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261:
    relative CE_c = sum_s (E_{c,s} - E_clean) / sum_s (E^AlexNet_{c,s} - E^AlexNet_clean).

    Args:
        errors: top-1 error per corruption, as in `corruption_errors`.
        clean_error: top-1 error on the clean images, a fraction. A corruption may have a smaller one: the result is
            then negative.
        baseline: errors of the model to compare with.
        baseline_clean_error: its clean error; replace both or neither.

    Returns:
        Relative CE per corruption as a fraction, in the baseline's order.

    Raises:
        TypeError: as `corruption_errors`.
        ValueError: as `corruption_errors`, or if a corruption does not add to the baseline's error: nothing is relative
            to that.

    Examples:
        >>> relative_corruption_errors({"fog": 0.5}, 0.25, baseline={"fog": 0.75}, baseline_clean_error=0.25)
        {'fog': 0.5}
    """
    clean = check_rate(clean_error, "clean_error")
    base_clean = check_rate(baseline_clean_error, "baseline_clean_error")
    found = {}
    for name, (error, base) in beside(errors, baseline, called="errors").items():
        if base <= base_clean:
            raise ValueError(
                f"baseline[{name!r}] is {base:g}, no more than baseline_clean_error {base_clean:g}: a relative error "
                "needs a baseline that the corruption makes worse"
            )
        found[name] = (error - clean) / (base - base_clean)
    return found


def relative_mean_corruption_error(
    errors: Rates,
    clean_error: float,
    baseline: Rates = ALEXNET_ERRORS,
    baseline_clean_error: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Average the relative corruption errors (relative mCE): 1 is a fall in accuracy like AlexNet's, 0 none.

    Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261.

    Args:
        errors: top-1 error per corruption, as in `corruption_errors`.
        clean_error: top-1 error on the clean images, a fraction.
        baseline: errors of the model to compare with.
        baseline_clean_error: its clean error; replace both or neither.

    Returns:
        Relative mCE as a fraction; it may be negative.

    Raises:
        TypeError: as `relative_corruption_errors`.
        ValueError: as `relative_corruption_errors`.

    Examples:
        >>> relative_mean_corruption_error(ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR)
        1.0
    """
    return fmean(relative_corruption_errors(errors, clean_error, baseline, baseline_clean_error).values())


def mean_error(errors: Rates, corruptions: Collection[str] = tuple(ALEXNET_ERRORS)) -> float:
    """Average the error itself over corruptions and severities; the score of CIFAR-C and Tiny ImageNet-C.

    Papers on CIFAR-C, among them AugMix (Hendrycks et al., ICLR 2020, arXiv:1912.02781) and PRIME (Modas et al., ECCV
    2022, arXiv:2112.13547), call this mCE. It is not normalised by any baseline and cannot be compared with
    `mean_corruption_error`.

    Args:
        errors: top-1 error per corruption, a fraction in [0, 1]: the mean over the severities, or one value per
            severity.
        corruptions: the names that the mean is over, by default the 15 of ImageNet-C and CIFAR-C; `errors` must have
            exactly these.

    Returns:
        The mean error as a fraction: 0.112 where papers print 11.2.

    Raises:
        TypeError: if something is not a mapping of numbers.
        ValueError: if a corruption is missing or not among `corruptions`, a value is NaN or outside [0, 1], or the
            numbers of severities differ.

    Examples:
        >>> mean_error({"fog": [0.25, 0.75], "snow": 0.25}, corruptions=("fog", "snow"))
        0.375
    """
    if not corruptions:
        raise ValueError("corruptions is empty: name what the mean is over")
    return fmean(averages(errors, corruptions, called="errors", source="`corruptions`").values())


def _without_noise(rates: Any) -> Any:
    """Drop the noises; what is no mapping goes on to the check that says so."""
    return {name: rates[name] for name in rates if name not in NOISES} if isinstance(rates, Mapping) else rates
