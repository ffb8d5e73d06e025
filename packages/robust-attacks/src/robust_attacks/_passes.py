"""The passes through a model that the pool and its searches make, counted."""

from collections.abc import Callable

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks._checks import Model, check_logits


class Passes:
    """A model whose forward and backward passes are counted, image by image.

    Half-precision logits are widened to float32. A model that randomises is judged by the mean logits of `eot` draws,
    and its gradient is the mean over them: Athalye, Engstrom, Ilyas, Kwok, "Synthesizing robust adversarial examples",
    ICML 2018, arXiv:1707.07397.

    Args:
        model: images (N, C, H, W) to logits (N, K).
        eot: draws per evaluation, >= 1; each is a pass of its own, so the memory is that of one.
        fast: does the same as the model, up to rounding; it takes all passes but those that are asked to be exact.
    """

    def __init__(self, model: Model, eot: int = 1, fast: Model | None = None) -> None:
        self._exact = model
        self._model = fast or model
        self._eot = eot
        self.forwards = 0
        self.backwards = 0
        self.finite: Tensor | None = None
        """Which rows of the last evaluation had finite logits, bool (n,); None if all are known to."""

    def logits(self, points: Tensor, *, exact: bool = False) -> Tensor:
        """Logits (n, K) of points (n, C, H, W), without a graph; `exact` ones are those of the model itself."""
        with torch.no_grad():
            draws = (self.draw(points, exact=exact) for _ in range(self._eot - 1))
            logits = sum(draws, self.draw(points, exact=exact))
        if self._eot > 1:
            logits = logits / self._eot
        self.finite = None if _host.surely_finite(logits) else logits.isfinite().all(dim=1)
        return logits

    def draw(self, points: Tensor, *, exact: bool = False) -> Tensor:
        """Logits (n, K) of one forward pass, checked and counted; with a graph where the points ask for one.

        Raises:
            TypeError: if the logits are of a wrong type.
            ValueError: if their shape is wrong, or the model writes into the points.
        """
        writes: int = points._version
        logits = (self._exact if exact else self._model)(points)
        if points._version > writes:
            raise ValueError("the model changes its input in place, as by images.sub_(mean): let it make a new tensor")
        check_logits(logits, points)
        self.forwards += len(points)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def gradient(
        self, points: Tensor, loss: Callable[[Tensor], Tensor], need_gradient: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (n, K), losses (n,) and the gradient (n, C, H, W) of the summed losses; NaN in it counts as zero.

        Args:
            points: where, (n, C, H, W).
            loss: logits (n, K) to losses (n,).
            need_gradient: False spares the backward pass and gives None for the gradient.
        """
        if not need_gradient:
            logits = self.logits(points)
            return logits, loss(logits), None
        logits, losses, gradient = self._differentiate(points, loss)
        for _ in range(self._eot - 1):
            more = self._differentiate(points, loss)
            logits, losses, gradient = logits + more[0], losses + more[1], gradient + more[2]
        if self._eot > 1:
            logits, losses, gradient = logits / self._eot, losses / self._eot, gradient / self._eot
        self.finite = logits.isfinite().all(dim=1)
        return logits, losses, gradient

    def counted(self) -> Model:
        """The model as a function, whose forward and backward passes are counted whoever makes them."""

        def model(points: Tensor) -> Tensor:
            logits = self._model(points)
            self.forwards += len(points)
            if getattr(logits, "requires_grad", False):  # a wrong type is the attack's to refuse
                logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
            return logits

        return model

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    def _differentiate(self, points: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        leaf = points.detach().requires_grad_()
        logits = self.draw(leaf)
        losses = loss(logits)
        gradient = None
        if losses.requires_grad:
            gradient = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)[0]
            self.backwards += len(points)
        # A new tensor: autograd may hand out expanded ones, a CUDA graph writes over its own.
        gradient = torch.zeros_like(points) if gradient is None else gradient.nan_to_num(nan=0.0)
        return logits.detach(), losses.detach(), gradient
