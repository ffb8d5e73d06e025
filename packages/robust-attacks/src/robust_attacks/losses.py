"""Losses that an attacker increases: logits (N, K) and labels (N,) in, one number per image out.

Half-precision logits are widened to float32 first: in bfloat16 a cross-entropy below 1e-3 has no gradient left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robust_attacks import _host

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and labels (N,) to losses (N,), never reduced, so that images do not influence each other."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, `logsumexp(z) - z_y`.

    Args:
        logits: (N, K), K >= 2.
        labels: int64 (N,).

    Examples:
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0])).exp()
        tensor([2.])
    """
    return functional.cross_entropy(_widened(logits), labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of another class minus the logit of the label; positive where the image is misclassified.

    Carlini and Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, arXiv:1608.04644 (f_6).

    Args:
        logits: (N, K), K >= 2.
        labels: int64 (N,).

    Examples:
        >>> margin(torch.tensor([[-3.0, -1.0, -2.0]]), torch.tensor([1]))
        tensor([-1.])
    """
    logits = _widened(logits)
    return _largest_other(logits, labels) - _logit_of(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio: the margin divided by the gap between the first and the third logit.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    ICML 2020, arXiv:2003.01690, equation 6. Unchanged when the logits are shifted or scaled.

    Args:
        logits: (N, K), K >= 3.
        labels: int64 (N,).

    Raises:
        ValueError: if there are fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"dlr needs at least 3 classes, the logits have {logits.shape[1]}: use margin")
    logits = _widened(logits)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The logit of a target class minus that of the label, divided by the gap between the first logit and those behind.

    Croce and Hein, ICML 2020, arXiv:2003.01690, equation 7: the gap is `z_(1) - (z_(3) + z_(4)) / 2`. With three
    classes it is `z_(1) - z_(3)`; with two, where every such gap would be the margin itself, there is no division.

    Args:
        logits: (N, K), K >= 2.
        labels: true classes, int64 (N,).
        targets: the classes to approach, int64 (N,).
    """
    logits = _widened(logits)
    difference = _logit_of(logits, targets) - _logit_of(logits, labels)
    classes = logits.shape[1]
    if classes == 2:
        return difference
    top = logits.topk(min(classes, 4), dim=1).values
    return difference / (top[:, 0] - top[:, 2:].mean(dim=1) + 1e-12)


@dataclass(frozen=True)
class Targeted:
    """A loss turned round: it rises towards the labels, which are now targets. Made by `targeted`."""

    loss: Loss

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Minus the loss: logits (N, K) and target classes (N,) to (N,)."""
        return -self.loss(logits, targets)


def targeted(loss: Loss) -> Targeted:
    """The loss `-loss(logits, targets)`: an attack with it moves towards the labels that it is given.

    It carries its rule of success, so no flag can disagree with it: an image succeeds when the target is predicted.

    Raises:
        TypeError: if `loss` is targeted already.

    Examples:
        >>> targeted(margin)(torch.tensor([[2.0, 5.0]]), torch.tensor([0]))
        tensor([-3.])
    """
    if isinstance(loss, Targeted):
        raise TypeError(f"{loss} is targeted already: pass the plain loss")
    return Targeted(loss)


def predicted(logits: Tensor) -> Tensor:
    """The predicted class, int64 (N,): the lowest index that attains the largest of the logits (N, K).

    Rows with a NaN get K, which is no class.
    """
    classes = logits.shape[1]
    largest = logits == logits.amax(dim=1, keepdim=True)
    return torch.where(largest, torch.arange(classes, device=logits.device), classes).amin(dim=1)


def succeeded(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Which images the attacker has won, bool (N,).

    Misclassified for an ordinary loss; predicted as the label for a `targeted` one. Non-finite logits never count.

    Args:
        loss: the loss of the attack.
        logits: (N, K).
        labels: true labels, or targets for a `targeted` loss, int64 (N,).
    """
    classes = logits.argmax(dim=1)  # of equal logits the first, as in `predicted`; rows with a NaN do not count
    hits = classes == labels if isinstance(loss, Targeted) else classes != labels
    return hits if _host.surely_finite(logits) else hits & logits.isfinite().all(dim=1)


def _widened(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _logit_of(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0]


def _largest_other(logits: Tensor, labels: Tensor) -> Tensor:
    # Masked by -inf: multiplying by a one-hot mask would put a 0 in the race, which wins when all logits are negative.
    return logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
