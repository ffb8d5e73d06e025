"""Straight lines between the weights of two models."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_optim.held_out import HeldOutAccuracy, measure
from robust_optim.state_dicts import State, check_state, differences, is_mixable, wide_dtype

TENTHS = tuple(i / 10 for i in range(11))


@dataclass(frozen=True, kw_only=True)
class ChosenAlpha:
    """What `choose_alpha` found.

    Attributes:
        alpha: the best one.
        state: the weights there.
        accuracies: the held-out accuracy at every alpha tried.
    """

    alpha: float
    state: dict[str, Tensor]
    accuracies: dict[float, float]


@torch.no_grad()
def interpolate(a: State, b: State, alpha: float) -> dict[str, Tensor]:
    """The weights (1 - alpha) a + alpha b, for instance between a pre-trained model and the one fine-tuned from it.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022, arXiv:2109.01903: with a
    before and b after fine-tuning, models in between are often better than b on its own data and far better under
    distribution shift. The paper's choice without any search is 0.5. It needs models that share the beginning of
    their training.

    The mean is taken in float32 at least and stored in the type of the entries. Integers and booleans come from b. The
    running statistics of batch norms are mixed like weights: call `reestimate_batch_norm` on the result.

    Args:
        a: state dict that alpha = 0 gives back, bit for bit.
        b: state dict that alpha = 1 gives back, with the same names, shapes, types and devices.
        alpha: position between them, in [0, 1].

    Returns:
        A new state dict in the order of b.

    Raises:
        TypeError: if a or b holds anything but tensors.
        ValueError: if they do not fit, or alpha is out of range.

    Examples:
        >>> a, b = {"weight": torch.tensor([0.0, 4.0])}, {"weight": torch.tensor([1.0, 0.0])}
        >>> interpolate(a, b, 0.25)
        {'weight': tensor([0.2500, 3.0000])}
    """
    check_state(a, "a")
    check_state(b, "b")
    if found := differences(a, b):
        raise ValueError(f"a and b are not of the same model; b against a: {found}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a position between a (0) and b (1), got {alpha}")
    if alpha == 0:
        return {name: (a[name] if is_mixable(end) else end).clone() for name, end in b.items()}
    if alpha == 1:
        return {name: end.clone() for name, end in b.items()}
    return {name: _between(a[name], end, alpha) if is_mixable(end) else end.clone() for name, end in b.items()}


def choose_alpha(a: State, b: State, accuracy: HeldOutAccuracy, alphas: Iterable[float] = TENTHS) -> ChosenAlpha:
    """Try positions between two models and keep the one with the best held-out accuracy.

    Held out means images that neither trained the models nor will be reported on: an alpha chosen on a test set, or on
    the shifted sets whose robustness it is to show, makes those numbers worthless.

    Args:
        a: state dict before fine-tuning.
        b: state dict after it.
        accuracy: measures a state dict on held-out images; larger is better: loads it into the model, for
            instance, and counts. It may not change the tensors.
        alphas: positions to try, in [0, 1]. Among equals the smallest wins, which stays closest to a.

    Raises:
        ValueError: if there is no alpha, an accuracy is not finite, or for the reasons of `interpolate`.
        TypeError: for those of `interpolate`.

    Examples:
        >>> a, b = {"weight": torch.tensor(0.0)}, {"weight": torch.tensor(1.0)}
        >>> chosen = choose_alpha(a, b, lambda state: -abs(float(state["weight"]) - 0.31), alphas=[0, 0.25, 0.5, 1])
        >>> chosen.alpha, chosen.state
        (0.25, {'weight': tensor(0.2500)})
    """
    accuracies = {}
    for alpha in alphas:
        accuracies[alpha] = measure(accuracy, interpolate(a, b, alpha), f"alpha = {alpha}")
    if not accuracies:
        raise ValueError("alphas is empty: give at least one position to try")
    best = min(accuracies, key=lambda alpha: (-accuracies[alpha], alpha))
    return ChosenAlpha(alpha=best, state=interpolate(a, b, best), accuracies=accuracies)


def _between(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    wide = wide_dtype(a.dtype)
    return torch.lerp(a.to(wide), b.to(wide), alpha).to(a.dtype)
