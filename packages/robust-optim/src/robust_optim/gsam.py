"""Sharpness-aware minimisation that also narrows the surrogate gap."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robust_optim.checks import check_radius
from robust_optim.distributed import Sync
from robust_optim.sam import SAM
from robust_optim.tensor_lists import dot, local, scale_, total_norm


class GSAM(SAM):
    """Step with the gradient at the worst weights nearby, less what of the first gradient is orthogonal to it.

    Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022, arXiv:2203.08065,
    algorithm 1: with g at the weights and g' at w + e of SAM,

        g_orthogonal = g - <g, g'> / norm(g')^2 * g',    w <- base step at w with g' - alpha * g_orthogonal,

    which lowers the perturbed loss and, to first order without touching it, its gap to the loss itself. The radius may
    follow the learning rate, from rho at the full rate to `rho_min` at `lr_min`. Costs as SAM; it
    keeps the gradient of the first pass beside the copy of the weights.

    Args:
        base: the optimizer that makes the step, already built.
        rho: L2 radius of the neighbourhood, at the full learning rate if it follows it.
        alpha: weight of the orthogonal part, at least 0; the paper has 0.01 to 0.4. 0 is SAM.
        rho_min: radius where the learning rate is `lr_min`; None keeps rho constant. In between it is linear in the
            learning rate of the parameter group, and outside it stays at the nearer end.
        lr_min: the lowest learning rate of the schedule. The full rate is that of each group when it is wrapped, before
            a scheduler changes it; put a "full_lr" into the group to say otherwise.
        **settings: those of `SAM`. The usual `sync` is "global"; "per_rank" combines on each rank and averages that.

    Raises:
        TypeError, ValueError: if an argument is of the wrong kind or out of range; see `SAM`.
    """

    usual_sync: ClassVar[Sync] = "global"
    combines: ClassVar[bool] = True

    alpha: float
    rho_min: float | None
    lr_min: float

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        rho: float = 0.05,
        alpha: float = 0.4,
        rho_min: float | None = None,
        lr_min: float = 0.0,
        **settings: Any,
    ) -> None:
        check_radius(alpha, "alpha")
        check_radius(lr_min, "lr_min")
        if rho_min is not None:
            check_radius(rho_min, "rho_min")
        super().__init__(base, rho=rho, alpha=alpha, rho_min=rho_min, lr_min=lr_min, **settings)
        for group in self.param_groups:
            self._radius_of(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer; its learning rate now is its full one."""
        super().add_param_group(param_group)
        self._radius_of(self.param_groups[-1])

    def _radius_of(self, group: dict[str, Any]) -> float:
        rho = super()._radius_of(group)
        if self.rho_min is None:
            return rho
        lr = float(group["lr"])
        full: float = group.setdefault("full_lr", lr)  # a rate that was never noted, as in a plain state, is full
        if not full > self.lr_min:
            raise ValueError(
                f"the full learning rate of a group, {full}, is not above lr_min {self.lr_min}: wrap the optimizer "
                'before a scheduler changes it, or put a "full_lr" into the group'
            )
        return self.rho_min + (rho - self.rho_min) * min(max((lr - self.lr_min) / (full - self.lr_min), 0.0), 1.0)

    def _combine(
        self,
        parameters: list[nn.Parameter],  # noqa: ARG002 - of the protocol
        first: list[Tensor],
        second: list[Tensor],
    ) -> None:
        square = total_norm(second).square()
        projection = torch.where(square > 0, dot(first, second) / square, 0)
        scale_(second, 1 + self.alpha * projection)
        torch._foreach_add_([local(x) for x in second], [local(x) for x in first], alpha=-self.alpha)
