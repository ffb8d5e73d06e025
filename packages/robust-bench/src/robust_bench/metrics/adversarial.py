"""Scores of attacked models, from per-image records of being right."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robust_bench.metrics._columns import Values, check_lengths, truths


def robust_accuracy(clean_correct: Values, attacked_correct: Mapping[str, Values]) -> float:
    """Give the share of all images that are right when clean and under every attack.

    Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    ICML 2020, arXiv:2003.01690. It is relative to all images, unlike `worst_case_adversarial_robustness`, and equals
    the clean accuracy times that: never put the two into one column.

    Args:
        clean_correct: (N,) whether the clean image is classified correctly; booleans, or 0 and 1.
        attacked_correct: for every attack, (N,) whether the attacked image is.

    Returns:
        A fraction.

    Raises:
        TypeError: if a column is not boolean, or the attacks are no mapping.
        ValueError: if there is no attack, or a column is empty or of another length.

    Examples:
        >>> robust_accuracy([True, True, False, True], {"fgsm": [True, False, True, True], "pgd": [True] * 4})
        0.5
    """
    clean, attacked = _columns(clean_correct, attacked_correct)
    return float(np.mean(clean & attacked.all(axis=0)))


def adversarial_robustness(clean_correct: Values, attacked_correct: Values) -> float:
    """Give the share of the correctly classified clean images that are still right under one attack (AR).

    Tang et al., "RobustART: Benchmarking Robustness on Architecture Design and Training Techniques",
    arXiv:2109.05211. It is relative to the images that are right when clean, whatever their number.

    Args:
        clean_correct: (N,) whether the clean image is classified correctly; booleans, or 0 and 1.
        attacked_correct: (N,) whether the attacked image is.

    Returns:
        A fraction.

    Raises:
        TypeError: if a column is not boolean.
        ValueError: if they are empty or of different lengths, or no clean image is right.

    Examples:
        >>> adversarial_robustness([True, True, False, True], [True, False, True, False])
        0.3333333333333333
    """
    return worst_case_adversarial_robustness(clean_correct, {"attacked_correct": attacked_correct})


def worst_case_adversarial_robustness(clean_correct: Values, attacked_correct: Mapping[str, Values]) -> float:
    """Give the share of the correctly classified clean images that are still right under every attack (WCAR).

    Tang et al., "RobustART: Benchmarking Robustness on Architecture Design and Training Techniques",
    arXiv:2109.05211. Times the clean accuracy it is the robust accuracy.

    Args:
        clean_correct: (N,) whether the clean image is classified correctly; booleans, or 0 and 1.
        attacked_correct: for every attack, (N,) whether the attacked image is.

    Returns:
        A fraction, never above the AR under any of the attacks.

    Raises:
        TypeError: if a column is not boolean, or the attacks are no mapping.
        ValueError: if there is no attack, a column is empty or of another length, or no clean image is right.

    Examples:
        >>> worst_case_adversarial_robustness([1, 1, 0], {"fgsm": [1, 1, 1], "pgd": [1, 0, 0]})
        0.5
    """
    clean, attacked = _columns(clean_correct, attacked_correct)
    if not clean.any():
        raise ValueError(
            f"no clean image of {len(clean)} is right: robustness relative to the right ones is not defined; report "
            "the robust accuracy, 0"
        )
    return float(np.mean(attacked[:, clean].all(axis=0)))


def robust_counts(clean_correct: Values, attacked_correct: Mapping[str, Values]) -> dict[str, int]:
    """Count the images that are right when clean and still right after every attack so far, stage by stage.

    Croce & Hein, ICML 2020, arXiv:2003.01690: what is reported per attack of a list, not only at its end.

    Args:
        clean_correct: (N,) whether the clean image is classified correctly; booleans, or 0 and 1.
        attacked_correct: for every attack in its order, (N,) whether the attacked image is.

    Returns:
        Cumulative counts in the same order, which never rise; the last one over N is the robust accuracy.

    Raises:
        TypeError: if a column is not boolean, or the attacks are no mapping.
        ValueError: if there is no attack, or a column is empty or of another length.

    Examples:
        >>> robust_counts([1, 1, 0, 1], {"fgsm": [1, 0, 1, 1], "pgd": [0, 1, 1, 1]})
        {'fgsm': 2, 'pgd': 1}
    """
    clean, attacked = _columns(clean_correct, attacked_correct)
    left = np.logical_and.accumulate(attacked, axis=0) & clean
    return dict(zip(attacked_correct, left.sum(axis=1).tolist(), strict=True))


@dataclass(frozen=True)
class AttackEffectiveness:
    """How close an attack of few steps comes to one of many.

    Args:
        relative_difference: |L_o - L_k| / L_o, a fraction; small if few steps suffice.
        ratio: L_k / L_o, 1 if the attack is as good as the oracle.
    """

    relative_difference: float
    ratio: float


def attack_effectiveness(loss: float, oracle_loss: float) -> AttackEffectiveness:
    """Compare the loss that a short attack reaches with that of a long one, the oracle.

    Debenedetti, Sehwag & Mittal, "A Light Recipe to Train Robust Vision Transformers", SaTML 2023, arXiv:2209.07399,
    section V-A, equation 2. There L_k is the mean cross-entropy under PGD of k = 1, 2, 5, 10 steps of 1.5 eps / k, and
    the oracle takes 200 steps.

    Args:
        loss: L_k, the mean loss under the short attack, at least 0.
        oracle_loss: L_o, the mean loss under the oracle, above 0.

    Returns:
        The relative difference, as a fraction where the paper prints per cent, and the ratio.

    Raises:
        ValueError: if a loss is negative or not finite, or the oracle's is 0.

    Examples:
        >>> effect = attack_effectiveness(2.1252, 2.2793)
        >>> round(effect.relative_difference, 4), round(effect.ratio, 4)
        (0.0676, 0.9324)
    """
    if not (np.isfinite(loss) and loss >= 0.0):
        raise ValueError(f"loss must be a mean cross-entropy, finite and at least 0, got {loss}")
    if not (np.isfinite(oracle_loss) and oracle_loss > 0.0):
        raise ValueError(f"oracle_loss must be a mean cross-entropy, finite and above 0, got {oracle_loss}")
    return AttackEffectiveness(abs(oracle_loss - loss) / oracle_loss, loss / oracle_loss)


def _columns(
    clean_correct: Values, attacked_correct: Mapping[str, Values]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Give (N,) clean and (attacks, N) attacked truths."""
    if not isinstance(attacked_correct, Mapping):
        raise TypeError(
            "attacked_correct must map the name of every attack to its column, e.g. {'pgd': correct}, got "
            f"{type(attacked_correct).__name__}"
        )
    if not attacked_correct:
        raise ValueError("attacked_correct is empty: give at least one attack")
    clean = truths("clean_correct", clean_correct)
    attacked = {name: truths(name, column) for name, column in attacked_correct.items()}
    for name, column in attacked.items():
        check_lengths(**{"clean_correct": clean, name: column})
    return clean, np.stack(list(attacked.values()))
