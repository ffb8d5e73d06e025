"""Sharpness-aware minimisation that moves some of the weights and steps with some of the images."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust_optim.distributed import no_sync
from robust_optim.sam import SAM

Losses = Callable[[Tensor | None], Tensor]


class ESAM(SAM):
    """SAM at lower cost: a random part of the weights is moved, and the images that suffer from it make the step.

    Du et al., "Efficient Sharpness-aware Minimization for Improved Training of Neural Networks", ICLR 2022,
    arXiv:2110.03141, algorithm 1: of e of SAM a random part is kept, with probability `beta`, and divided by `beta`;
    the second backward pass takes the ceil(`gamma` * N) images whose loss grew most from w to w + e. With both at 0.5
    an update costs 5/3 of a plain one: 2.5 units for the first pass, 1 for the losses at w + e, 1.5 for the part of the
    images, against 3.

    The step takes a function of the losses instead of a closure, and runs the backward passes itself:

        def losses(subset=None):
            x, y = (images, labels) if subset is None else (images[subset], labels[subset])
            return cross_entropy(model(x), y, reduction="none")

        loss = optimizer.step(losses)

    Differs from the published code: exactly ceil(gamma * N) images are taken, also where losses tie; gradients that are
    not needed are not computed, without switching `requires_grad` or private flags of DistributedDataParallel.

    Args:
        base: the optimizer that makes the step, already built.
        rho: L2 radius of the neighbourhood, at least 0; 0 gives the base optimizer on all images.
        beta: share of the weights that are moved, in (0, 1]; the paper has 0.5 to 0.6.
        gamma: share of the images that make the step, in (0, 1]; 0.5 in the paper.
        part: "tensors" draws whole tensors, as the published code, and saves the rest's gradients of the first pass (at
            `sync="global"` they are computed all the same); then the norm is that of the drawn ones, and at least one
            is drawn. "coordinates" draws single weights, as the paper writes it.
        seed: of the draws, which depend on it and on the number of updates alone.
        **settings: those of `SAM`.

    Raises:
        TypeError, ValueError: if an argument is of the wrong kind or out of range; see `SAM`.
    """

    several_closures = False

    beta: float
    gamma: float
    part: Literal["tensors", "coordinates"]
    seed: int
    _draw: tuple[int, set[nn.Parameter]]  # the update and the tensors that were drawn for it

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        rho: float = 0.05,
        beta: float = 0.5,
        gamma: float = 0.5,
        part: Literal["tensors", "coordinates"] = "tensors",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        for name, value in (("beta", beta), ("gamma", gamma)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {value}")
        if part not in ("tensors", "coordinates"):
            raise ValueError(f'part must be "tensors" or "coordinates", got {part!r}')
        super().__init__(base, rho=rho, beta=beta, gamma=gamma, part=part, seed=seed, **settings)

    def step(self, losses: Losses | None = None) -> Tensor:  # type: ignore[override]
        """Evaluate `losses` at the weights, at the perturbed weights and there on a part, then let the base step.

        Args:
            losses: `losses(subset)` runs the network and returns the loss of every image of the batch, a tensor (N,),
                or of those at the indices `subset`, an int64 tensor on the losses' device, in its order. It runs no
                backward pass. It is called three times, twice with None, or twice where `gamma` is 1.

        Returns:
            The mean loss at the weights before the step, detached: this rank's own.

        Raises:
            TypeError: if there is no such function, or it does not return a tensor.
            ValueError: if the tensor is not one loss per image.
            RuntimeError: if no parameter gets a gradient, or a sparse one. Whatever is raised, the weights are as
                before.
        """
        if not callable(losses):
            raise TypeError("ESAM needs the loss of every image: optimizer.step(losses), where losses(subset) is (N,)")
        self._refuse_between_passes("stepped")
        random = self._random_state()
        if not self.perturbs:
            before = self._backward(losses, None)
        else:
            with no_sync(self.model if self.sync == "per_rank" else None):
                before = self._backward(losses, None, self._needed())
            self.ascend()
            try:
                with self._frozen_batch_norm():
                    subset = None
                    if self.gamma < 1:
                        if random:
                            random.set()
                        with torch.no_grad():
                            subset = self.select(before, _per_image(losses, None))
                    if random:
                        random.set()
                    self._backward(losses, subset)
            except BaseException:
                self.restore()
                raise
        self.descend()
        return before.mean()

    def select(self, before: Tensor, after: Tensor) -> Tensor:
        """The indices (k,) of the k = ceil(gamma * N) images whose losses (N,) grew most, for a loop of your own."""
        count = math.ceil(self.gamma * len(before) - 1e-9)  # 0.55 * 100 is a little above 55 in floating point
        return (after - before).topk(max(count, 1)).indices

    @torch.enable_grad()
    def _backward(self, losses: Losses, subset: Tensor | None, needed: list[nn.Parameter] | None = None) -> Tensor:
        """Forward, and backward of the mean loss to all parameters or those `needed`; the losses come back detached."""
        self.zero_grad()
        values = _per_image(losses, subset)
        loss = values.mean() if self.scaler is None else self.scaler.scale(values.mean())
        loss.backward(inputs=needed)  # type: ignore[no-untyped-call]
        return values.detach()

    def _needed(self) -> list[nn.Parameter] | None:
        """Parameters that need a gradient in the first pass, None for all of them."""
        if self.part == "coordinates" or self.sync == "global":
            return None
        return [parameter for parameter in self._parameters() if parameter in self._drawn()]

    def _is_perturbed(self, parameter: nn.Parameter) -> bool:
        if self.part == "coordinates":
            return super()._is_perturbed(parameter)
        return parameter in self._drawn()

    def _drawn(self) -> set[nn.Parameter]:
        """The tensors that are moved in this update."""
        if self._draw[0] != self.updates:
            candidates = [p for p in self._parameters() if p.requires_grad and super(ESAM, self)._is_perturbed(p)]
            if not candidates:
                raise RuntimeError("none of the parameters that are to be perturbed takes a gradient")
            chances = torch.rand(len(candidates), generator=self._generator(torch.device("cpu"))).tolist()
            chosen = {p for p, chance in zip(candidates, chances, strict=True) if chance < self.beta}
            self._draw = (self.updates, chosen or {candidates[chances.index(min(chances))]})
        return self._draw[1]

    def _perturbation(
        self, parameters: list[nn.Parameter], gradients: list[Tensor], radii: list[float]
    ) -> tuple[list[Tensor], Tensor]:
        moves, finite = super()._perturbation(parameters, gradients, [radius / self.beta for radius in radii])
        if self.part == "coordinates" and self.beta < 1:
            generators = {device: self._generator(device) for device in {move.device for move in moves}}
            for move in moves:
                kept = torch.rand(move.shape, generator=generators[move.device], device=move.device) < self.beta
                move.mul_(kept)
        return moves, finite

    def _generator(self, device: torch.device) -> torch.Generator:
        """Of this update, so that nothing has to be remembered for a resume."""
        return torch.Generator(device).manual_seed((self.seed * 0x9E3779B97F4A7C15 + self.updates) % 2**63)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set up the attributes that a copy or a pickle does not carry."""
        self._draw = (-1, set())
        super().__setstate__(state)


def _per_image(losses: Losses, subset: Tensor | None) -> Tensor:
    values = losses(subset)
    if not isinstance(values, Tensor):
        raise TypeError(f"losses() must return the loss of every image, a tensor (N,), got {type(values).__name__}")
    expected = "(N,)" if subset is None else f"({len(subset)},)"
    if values.ndim != 1 or (subset is not None and len(values) != len(subset)):
        raise ValueError(
            f"losses() must return one loss per image, {expected}, got {tuple(values.shape)}: use reduction='none', "
            "and only the images of the subset"
        )
    return values
