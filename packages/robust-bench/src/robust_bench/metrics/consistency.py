"""Do two observers err on the same images? Consistency beyond what their accuracies make likely."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from robust_bench.metrics._columns import Values, check_lengths, truths

Answers: TypeAlias = Values | Mapping[Any, bool]
"""Whether an observer was right, per trial: in the order of the trials, or by stimulus id, which is the safer."""

Measure: TypeAlias = Callable[[Answers, Answers], float]
"""What is measured between two observers: one of the functions of this file."""


def error_consistency(correct_a: Answers, correct_b: Answers) -> float:
    """Give Cohen's kappa of being right: 1 if both err on the same images, 0 if independently.

    Geirhos, Meding & Wichmann, "Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by measuring
    error consistency", NeurIPS 2020, arXiv:2006.16736: (observed - expected) / (1 - expected), and 1
    where the observed consistency is 1.

    Args:
        correct_a: whether the first observer is right, (N,) booleans in the order of the trials, or a mapping from
            stimulus ids to booleans. No answer is a wrong one.
        correct_b: the same of the second observer. Mappings are matched by stimulus id.

    Returns:
        A number in [-1, 1]; negative if one tends to be right where the other is wrong.

    Raises:
        TypeError: if they are not boolean, or only one of them is a mapping.
        ValueError: if they are empty, of different lengths, or not of the same stimuli.

    Examples:
        >>> error_consistency([True, True, False, False], [True, True, True, False])
        0.5
    """
    observed = observed_consistency(correct_a, correct_b)
    if observed == 1.0:
        return 1.0
    expected = expected_consistency(correct_a, correct_b)
    return (observed - expected) / (1.0 - expected)


def observed_consistency(correct_a: Answers, correct_b: Answers) -> float:
    """Give the share of trials in which both observers are right or both are wrong.

    Geirhos, Meding & Wichmann, NeurIPS 2020, arXiv:2006.16736.

    Args:
        correct_a: whether the first observer is right, (N,) booleans in the order of the trials, or a mapping from
            stimulus ids to booleans.
        correct_b: the same of the second observer. Mappings are matched by stimulus id.

    Returns:
        A fraction.

    Raises:
        TypeError: if they are not boolean, or only one of them is a mapping.
        ValueError: if they are empty, of different lengths, or not of the same stimuli.

    Examples:
        >>> observed_consistency({"cat1": True, "dog7": False}, {"dog7": False, "cat1": False})
        0.5
    """
    a, b = _matched(correct_a, correct_b)
    return float(np.mean(a == b))


def expected_consistency(correct_a: Answers, correct_b: Answers) -> float:
    """Give the consistency of two independent observers of the same accuracies.

    Geirhos, Meding & Wichmann, NeurIPS 2020, arXiv:2006.16736: p_a p_b + (1 - p_a) (1 - p_b), where p is
    the share of right answers.

    Args:
        correct_a: whether the first observer is right, (N,) booleans in the order of the trials, or a mapping from
            stimulus ids to booleans.
        correct_b: the same of the second observer. Mappings are matched by stimulus id.

    Returns:
        A fraction.

    Raises:
        TypeError: if they are not boolean, or only one of them is a mapping.
        ValueError: if they are empty, of different lengths, or not of the same stimuli.

    Examples:
        >>> expected_consistency([True, True, True, False], [True, False, False, False])
        0.375
    """
    a, b = _matched(correct_a, correct_b)
    share_a, share_b = float(np.mean(a)), float(np.mean(b))
    return share_a * share_b + (1.0 - share_a) * (1.0 - share_b)


def accuracy_difference(correct_a: Answers, correct_b: Answers) -> float:
    """Give the squared difference of two observers' accuracies.

    Geirhos et al., "Partial success in closing the gap between human and machine vision", NeurIPS 2021,
    arXiv:2106.07411: (accuracy_a - accuracy_b)^2, of one condition and one pair of observers.

    Args:
        correct_a: whether the first observer is right, (N,) booleans in the order of the trials, or a mapping from
            stimulus ids to booleans.
        correct_b: the same of the second observer. Mappings are matched by stimulus id.

    Returns:
        A fraction, 0 for equal accuracies.

    Raises:
        TypeError: if they are not boolean, or only one of them is a mapping.
        ValueError: if they are empty, of different lengths, or not of the same stimuli.

    Examples:
        >>> accuracy_difference([True, True, True, False], [True, False, False, False])
        0.25
    """
    a, b = _matched(correct_a, correct_b)
    return float(np.mean(a) - np.mean(b)) ** 2


def _matched(correct_a: Answers, correct_b: Answers) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Bring the answers of two observers to the same stimuli into one order."""
    if isinstance(correct_a, Mapping) and isinstance(correct_b, Mapping):
        for here, there, first, second in (
            (correct_a, correct_b, "correct_a", "correct_b"),
            (correct_b, correct_a, "correct_b", "correct_a"),
        ):
            lone = [stimulus for stimulus in here if stimulus not in there]
            if lone:
                raise ValueError(
                    f"both observers must have seen the same stimuli: {len(lone)} of {len(here)} in {first} are not in "
                    f"{second}, e.g. {lone[0]!r}: check that the ids are free of session and trial numbers"
                )
        answers_a = list(correct_a.values())
        answers_b = [correct_b[stimulus] for stimulus in correct_a]
        return truths("correct_a", answers_a), truths("correct_b", answers_b)
    if isinstance(correct_a, Mapping) or isinstance(correct_b, Mapping):
        raise TypeError(
            "correct_a and correct_b must both be mappings from stimulus ids, or both be in the order of the trials: "
            f"got {type(correct_a).__name__} and {type(correct_b).__name__}"
        )
    a, b = truths("correct_a", correct_a), truths("correct_b", correct_b)
    check_lengths(correct_a=a, correct_b=b)
    return a, b
