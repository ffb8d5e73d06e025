"""Sharpness-aware minimisation that looks for the direction only now and then."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robust_optim.checks import check_count, check_radius
from robust_optim.distributed import Sync
from robust_optim.sam import SAM
from robust_optim.tensor_lists import dot, local, scale_, scaled, total_norm


class LookSAM(SAM):
    """SAM in every k-th update, whose correction of the gradient is reused in the updates between.

    Liu et al., "Towards Efficient and Scalable Sharpness-Aware Minimization", CVPR 2022, arXiv:2203.02714, algorithm 1:
    with g at the weights and g' at w + e of SAM, an update whose number divides by k steps with g' and stores

        g_v = g' - <g', g> / norm(g)^2 * g,

    and the others, of one pass only, step with g + alpha * norm(g) / norm(g_v) * g_v. An update costs 1 + 1 / k plain
    ones in the mean. The copy of the weights and the stored direction are the extra memory.

    In a loop of your own ask `perturbs`: if it is False, `descend()` follows the first backward pass.

    Args:
        base: the optimizer that makes the step, already built.
        rho: L2 radius of the neighbourhood, at least 0.
        k: a second pass every so many updates, at least 1; 1 is SAM. The paper has 5 and 10.
        alpha: weight of the stored direction, at least 0; 0.7 in the paper.
        **settings: those of `SAM`. The usual `sync` is "global", so that every rank stores the same direction.

    Raises:
        TypeError, ValueError: if an argument is of the wrong kind or out of range; see `SAM`.
    """

    usual_sync: ClassVar[Sync] = "global"
    combines: ClassVar[bool] = True
    several_closures = False

    k: int
    alpha: float

    def __init__(
        self, base: torch.optim.Optimizer, *, rho: float = 0.05, k: int = 5, alpha: float = 0.7, **settings: Any
    ) -> None:
        check_count(k, "k", least=1)
        check_radius(alpha, "alpha")
        if settings.get("friendly"):
            raise TypeError("LookSAM and friendly both store a direction and cannot be combined")
        super().__init__(base, rho=rho, k=k, alpha=alpha, **settings)

    @property
    def _due(self) -> bool:
        return self.updates % self.k == 0 or not self.directions

    def _perturbation(
        self, parameters: list[nn.Parameter], gradients: list[Tensor], radii: list[float]
    ) -> tuple[list[Tensor], Tensor]:
        self.directions = {}  # the new ones take their place in memory
        return super()._perturbation(parameters, gradients, radii)

    def _combine(self, parameters: list[nn.Parameter], first: list[Tensor], second: list[Tensor]) -> None:
        square = total_norm(first).square()
        scale_(first, torch.where(square > 0, -dot(second, first) / square, 0))
        torch._foreach_add_([local(x) for x in first], [local(x) for x in second])  # now g_v
        length = total_norm(first)
        usable = (length > 0) & length.isfinite()
        scale_(first, 1 / length)
        for direction in first:
            local(direction).masked_fill_(~usable.to(direction.device), 0)
        self._pending = dict(zip(parameters, first, strict=True))

    def _single(self, parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
        if not any(self._radius_of(group) > 0 for group in self.param_groups):
            return  # the base optimizer, whatever is remembered
        pairs = [(self.directions[p], g) for p, g in zip(parameters, gradients, strict=True) if p in self.directions]
        if pairs:
            directions, corrected = zip(*pairs, strict=True)
            pull = self.alpha * total_norm(gradients)
            torch._foreach_add_([local(x) for x in corrected], scaled(directions, pull, [1.0] * len(pairs)))
