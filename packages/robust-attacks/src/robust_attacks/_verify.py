"""The second look that every success must stand."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_attacks._passes import Passes
from robust_attacks.losses import Loss, succeeded
from robust_attacks.threats import Threat

_PIXELS = (1, 2, 3)


@dataclass(frozen=True)
class Judge:
    """Confirms wins: inside the threat in float64, and won again in a float32 pass without autocast and TF32.

    Args:
        passes: the model.
        loss: carries the rule of success, see `succeeded`.
    """

    passes: Passes
    loss: Loss

    def confirm(self, threat: Threat, images: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The points, moved inside where rounding had carried them out, and which of them win, bool (n,)."""
        points = brought_inside(threat, images, points)
        with exact_arithmetic():
            logits = self.passes.logits(points, exact=True)
        return points, succeeded(self.loss, logits, labels) & inside(threat, images, points)


def brought_inside(threat: Threat, images: Tensor, points: Tensor) -> Tensor:
    """The points (n, C, H, W), projected where rounding, or an attack from elsewhere, had carried them out."""
    outside = ~inside(threat, images, points)
    if not bool(outside.any()):
        return points
    repaired = threat.projector(images)(points.nan_to_num(nan=0.0))
    return torch.where(outside[:, None, None, None], repaired, points)


def inside(threat: Threat, images: Tensor, points: Tensor) -> Tensor:
    """Which points are finite, in the box and in the ball (in float64, up to the threat's tolerance), bool (n,)."""
    radii = torch.as_tensor(threat.radii(images), dtype=torch.float64, device=images.device).flatten()
    low, high = points.amin(dim=_PIXELS), points.amax(dim=_PIXELS)  # NaN if any is NaN, and then not inside
    return (low >= 0) & (high <= 1) & (threat.distance(images, points) <= radii * (1 + threat.tolerance))


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """TF32 and bf16 in the place of float32 off for a while."""
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "conv"):  # since torch 2.9; reading the older flags may fail where these are set
        places = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        places += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
        name, exact = "fp32_precision", "ieee"  # type: str, str | bool
    else:
        places, name, exact = [backends.cuda.matmul, backends.cudnn], "allow_tf32", False
    before = [getattr(place, name) for place in places]
    try:
        for place in places:
            setattr(place, name, exact)
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            setattr(place, name, value)


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Autocast off for a while, whatever the caller's mode: half precision would weaken an attack under its name."""
    with torch.autocast(device.type, enabled=False):
        yield
