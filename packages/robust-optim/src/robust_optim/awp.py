"""Adversarial weight perturbation."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robust_optim.checks import check_count
from robust_optim.distributed import Sync
from robust_optim.tensor_lists import local, norms, whole
from robust_optim.two_pass import Choice, Clip, Scaler, TwoPass


class AWP(TwoPass):
    """Train at the worst weights nearby, layer by layer, against robust overfitting.

    Wu, Xia & Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020, arXiv:2004.05884:
    for every tensor of more than one axis whose name contains "weight",

        v = gamma * norm(w) * g / (norm(g) + 1e-20),    w <- base step at w with the gradient at w + v,

    where g is the gradient of the loss on the adversarial images, at w. It works around any objective; the images are
    the same in both passes. A step costs one forward and one backward pass more, and one copy of the weights.

    Differs from the published code: no second copy of the model finds v, and the step is made at w. There it is made at
    w + v, and v is subtracted afterwards, which differs where weight decay is coupled to the gradient (SGD):
    `order="step_first"`.

    Args:
        base: the optimizer that makes the step, already built.
        model: the network, for the names of the parameters; see also `TwoPass`.
        gamma: length of the perturbation relative to the tensor's, at least 0: 0.01 for adversarial training, 0.005 for
            TRADES.
        start: so many updates without perturbation come first; the published TRADES runs have 10 epochs of them.
        order: "restore_first" steps at w; "step_first" at w + v, as published, and then subtracts v. Steps at
            weights that differ over ranks would let the ranks drift apart, so this order has only `sync="global"`.
        scaler, sync, clip, replay_random: see `TwoPass`.
        perturb: `perturb(name, parameter)` says which tensors are moved, instead of the rule above.

    Raises:
        TypeError, ValueError: if an argument is of the wrong kind or out of range; see `TwoPass`.
    """

    radius: ClassVar[str] = "gamma"

    start: int
    order: Literal["restore_first", "step_first"]
    _offsets: list[tuple[nn.Parameter, Tensor]]  # v, where it is to be subtracted after the step

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        model: nn.Module,
        gamma: float = 0.01,
        start: int = 0,
        order: Literal["restore_first", "step_first"] = "restore_first",
        scaler: Scaler | None = None,
        sync: Sync | None = None,
        clip: Clip | None = None,
        perturb: Choice | None = None,
        replay_random: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"AWP needs the torch.nn.Module whose weights it perturbs as model=, got {type(model)}")
        check_count(start, "start", least=0)
        if order not in ("restore_first", "step_first"):
            raise ValueError(f'order must be "restore_first" or "step_first", got {order!r}')
        if order == "step_first":
            if sync == "per_rank":
                raise ValueError(
                    'order="step_first" steps at the perturbed weights, which sync="per_rank" makes '
                    'different on every rank: use sync="global"'
                )
            sync = "global"
        super().__init__(
            base,
            gamma,
            model=model,
            scaler=scaler,
            sync=sync,
            clip=clip,
            perturb=perturb or _is_weight,
            replay_random=replay_random,
            several_closures=order == "restore_first",
            start=start,
            order=order,
        )

    @property
    def _due(self) -> bool:
        return self.updates >= self.start

    def _perturbation(
        self, parameters: list[nn.Parameter], gradients: list[Tensor], radii: list[float]
    ) -> tuple[list[Tensor], Tensor]:
        lengths = [whole(length) for length in norms(gradients)]
        factors = [
            radius * whole(size) / (length + 1e-20)
            for radius, size, length in zip(radii, norms(parameters), lengths, strict=True)
        ]
        moves = [local(gradient) * factor for gradient, factor in zip(gradients, factors, strict=True)]
        finite = torch.stack([length.isfinite().to(lengths[0].device) for length in lengths]).all()
        return moves, finite

    @torch.no_grad()
    def _return_and_combine(self, where: str) -> None:
        offsets = [(p, local(p) - local(saved)) for p, saved in self._moved] if self.order == "step_first" else []
        super()._return_and_combine(where)
        self._offsets = offsets

    def _finish(self, apart: bool) -> None:
        if self.order == "restore_first":
            super()._finish(apart)
            return
        offsets, self._offsets = self._offsets, []
        updates = self.updates
        with torch.no_grad():
            for parameter, offset in offsets:
                local(parameter).add_(offset)
            try:
                super()._finish(apart)
            finally:
                for parameter, offset in offsets:
                    if self.updates > updates:
                        local(parameter).sub_(offset)
                    else:  # skipped or failed, so the weights are to be exactly as before
                        parameter.copy_(self._buffers[parameter])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set up the attributes that a copy or a pickle does not carry."""
        self._offsets = []
        super().__setstate__(state)


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and "weight" in name
