"""Sharpness-aware minimisation, also adaptive and friendly."""

import math

import torch
from torch import Tensor, nn

from robust_optim.checks import check_radius
from robust_optim.distributed import Sync
from robust_optim.tensor_lists import local, scaled, total_norm
from robust_optim.two_pass import Choice, Clip, Scaler, TwoPass


class SAM(TwoPass):
    """Step with the gradient at the worst weights nearby, so that training ends in flat minima.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
    arXiv:2010.01412, equations 2 and 3: with the gradient g at the weights w,

        e = rho * g / (norm(g) + 1e-12),    w <- base step at w with the gradient at w + e,

    where the norm runs over all perturbed parameters of all groups. A step costs two forward and two backward passes
    and one copy of the weights. Weight decay, momentum and clipping belong to the base step alone.

    `adaptive` is ASAM: Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep
    Neural Networks", ICML 2021, arXiv:2102.11600, with T = abs(w) + eta, on the chosen tensors, and 1 elsewhere,

        e = rho * T^2 * g / (norm(T * g) + 1e-12).

    `friendly` is F-SAM: Li et al., "Friendly Sharpness-Aware Minimization", CVPR 2024, arXiv:2403.12350, which moves
    along what is particular to the batch, with a running mean m of the gradients that starts at 0:

        m <- decay * m + (1 - decay) * g,    d = g - friendly * m,    e = rho * d / (norm(d) + 1e-12).

    Differs from the common implementation (davda54/sam): the wrapped optimizer is one that is already built; its
    parameter groups and state are shared by reference; weights are restored by copying into the same storage; the state
    includes the base's momentum; `adaptive` has its eta and leaves biases alone. The published code of F-SAM subtracts
    the mean from before this batch and starts it at the first gradient; here it is the paper's. Without a scaler the
    mean moves with the ascent, to save a copy: also if the second pass then fails.

    Args:
        base: the optimizer that makes the step, already built: `torch.optim.SGD(model.parameters(), lr=0.1)`.
        rho: L2 radius of the neighbourhood, at least 0; 0 gives the base optimizer. Usual values are 0.05 for CIFAR
            and ResNet-50, 0.1 to 0.2 for vision transformers; adaptive 0.5 for CIFAR-10, 1 for CIFAR-100 and ImageNet.
        adaptive: scale the neighbourhood with the weights: True for the tensors whose names contain "weight", or
            `adaptive(name, parameter)` says for which. It needs `model`.
        eta: keeps small weights movable when adaptive, at least 0.
        friendly: share of the mean gradient that is taken out of the direction (the paper's sigma, 1 there), 0 for
            none.
        decay: of that mean (the paper's lambda), in [0, 1).
        model, scaler, sync, clip, perturb, replay_random: see `TwoPass`. The usual `sync` is "per_rank", but "global"
            when friendly, so that every rank remembers the same mean.

    Raises:
        TypeError, ValueError: if an argument is of the wrong kind or out of range; see `TwoPass`.

    Examples:
        >>> weights = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = SAM(torch.optim.SGD([weights], lr=0.1), rho=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = weights.square().sum() / 2
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure)  # the loss before the step; the gradient was taken at (3.3, 4.4)
        tensor(12.5000)
        >>> weights.detach()
        tensor([2.6700, 3.5600])
    """

    adaptive: bool | Choice
    eta: float
    friendly: float
    decay: float

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool | Choice = False,
        eta: float = 0.01,
        friendly: float = 0.0,
        decay: float = 0.9,
        model: nn.Module | None = None,
        scaler: Scaler | None = None,
        sync: Sync | None = None,
        clip: Clip | None = None,
        perturb: Choice | None = None,
        replay_random: bool = True,
        **settings: object,
    ) -> None:
        if adaptive is not False and model is None:
            raise TypeError(f"adaptive needs the names of the parameters: {type(self).__name__}(..., model=model)")
        check_radius(eta, "eta")
        if not math.isfinite(friendly):
            raise ValueError(f"friendly must be a finite number, 1 in the paper and 0 for SAM, got {friendly}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        super().__init__(
            base,
            rho,
            model=model,
            scaler=scaler,
            sync=sync or ("global" if friendly else None),
            clip=clip,
            perturb=perturb,
            replay_random=replay_random,
            several_closures=type(self).several_closures and not friendly,
            adaptive=adaptive,
            eta=eta,
            friendly=friendly,
            decay=decay,
            **settings,
        )

    def _perturbation(
        self, parameters: list[nn.Parameter], gradients: list[Tensor], radii: list[float]
    ) -> tuple[list[Tensor], Tensor]:
        directions = self._without_the_mean(parameters, gradients) if self.friendly else gradients
        scales = [self._scale(parameter) for parameter in parameters] if self.adaptive else []
        if scales:
            directions = [d if t is None else t * d for t, d in zip(scales, directions, strict=True)]
        norm = total_norm(directions)
        moves = scaled(directions, 1 / (norm + 1e-12), radii)
        if scales:
            moves = [m if t is None else local(t) * m for t, m in zip(scales, moves, strict=True)]
        finite = norm.isfinite()
        if self.friendly:
            self._remember(finite)
        return moves, finite

    def _scale(self, parameter: nn.Parameter) -> Tensor | None:
        """T of ASAM, None where it is 1."""
        name = self._name_of(parameter)
        chosen = self.adaptive(name, parameter) if callable(self.adaptive) else "weight" in name
        return parameter.abs().add_(self.eta) if chosen else None

    def _without_the_mean(self, parameters: list[nn.Parameter], gradients: list[Tensor]) -> list[Tensor]:
        """The direction d of F-SAM; the new mean, stored without the loss scale, is pending."""
        for parameter in parameters:
            self.directions.setdefault(parameter, torch.zeros_like(parameter, requires_grad=False))
        if self.scaler is not None:
            unit = 1 / self.scaler.scale(torch.ones((), device=gradients[0].device))
            gradients = [gradient * unit.to(gradient.device) for gradient in gradients]
        old = [self.directions[parameter] for parameter in parameters]
        means = torch._foreach_lerp(old, gradients, 1 - self.decay)
        self._pending = dict(zip(parameters, means, strict=True))
        return list(torch._foreach_sub(gradients, means, alpha=self.friendly))

    def _remember(self, finite: Tensor) -> None:
        for parameter, mean in self._pending.items():
            mean.copy_(torch.where(finite.to(mean.device), mean, self.directions[parameter]))
        if self.scaler is None:  # otherwise the update may still be skipped
            self.directions.update(self._pending)
            self._pending = {}
