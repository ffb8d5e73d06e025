"""Sharpness-aware minimisation."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from robust_optim.batch_norm import frozen_batch_norm

Closure = Callable[[], Tensor | float]


class SAM(torch.optim.Optimizer):
    """Step with the gradient at the worst weights nearby, so that training ends in flat minima.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
    arXiv:2010.01412, equations 2 and 3: with the gradient g at the weights w,

        e = rho * g / (norm(g) + 1e-12),    w <- base step at w with the gradient at w + e,

    where the norm runs over all parameters of all groups. A step costs two forward and two backward passes and one
    copy of the weights. Weight decay and momentum belong to the base step alone.

    Differs from the common implementation (davda54/sam): the wrapped optimizer is one that is already built; its
    parameter groups and state are shared by reference, so schedulers may take either of the two; weights are restored
    by copying into the same storage, never by subtraction and never by a new tensor; the state includes the base's
    momentum.

    Args:
        base: the optimizer that makes the step, already built: `torch.optim.SGD(model.parameters(), lr=0.1)`.
        rho: L2 radius of the neighbourhood, at least 0; 0 gives the base optimizer. Usual values are 0.05 for CIFAR
            and ResNet-50, 0.1 to 0.2 for vision transformers. A parameter group in which you put a `"rho"` keeps it;
            the others get this one, also where an earlier SAM around the same base wrote another. A schedule may
            change it there.
        model: the network, if its batch norms are to keep their running statistics in the second pass of `step`
            (see `frozen_batch_norm`); None leaves that to the closure.

    Attributes:
        base: the wrapped optimizer.

    Raises:
        TypeError: if `base` is a class, a list of parameters, or an optimizer that cannot be wrapped (LBFGS; or one
            with a rho of its own, such as Adadelta), or a rho is not a number.
        ValueError: if a rho is negative or not finite.

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

    base: torch.optim.Optimizer
    model: nn.Module | None

    def __init__(self, base: torch.optim.Optimizer, *, rho: float = 0.05, model: nn.Module | None = None) -> None:
        _check_base(base)
        _check_rho(rho)
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"model must be the torch.nn.Module that the closure runs, or None, got {type(model)}")
        for group in base.param_groups:
            _set_rho(group, rho)
        # Not Optimizer.__init__, which would make groups and state of its own: both belong to the base. Restoring
        # from a state is the public way to set up the rest (hooks, profiling) around attributes that exist already.
        self.__setstate__({"base": base, "model": model, "defaults": {**base.defaults, "rho": rho}})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set up the attributes that a copy or a pickle does not carry."""
        self._saved: list[tuple[Tensor, Tensor]] = []  # (parameter, its weights before the ascent) between the passes
        self._buffers: dict[Tensor, Tensor] = {}  # where those weights are kept, allocated once
        self._ascended = False
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_between_passes("copied")
        return {"base": self.base, "model": self.model, "defaults": self.defaults}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the base optimizer, the same objects, each with its rho."""
        groups: list[dict[str, Any]] = self.base.param_groups
        return groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The state of the base optimizer, the same object; SAM itself has none between steps."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer; its rho is its own, or else the one given to the constructor."""
        group = dict(param_group)
        _set_rho(group, self.defaults["rho"])
        self.base.add_param_group(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters."""
        self.base.zero_grad(set_to_none)

    def step(self, closure: Closure | None = None) -> Tensor | float:  # type: ignore[override]
        """Evaluate `closure` at the weights and at the perturbed weights, then let the base optimizer step.

        Args:
            closure: clears the gradients, runs forward and backward and returns the loss, as for
                `torch.optim.LBFGS`. It is called twice and must see the same batch both times.

        Returns:
            The loss of the first call, at the weights before the step, detached.

        Raises:
            TypeError: if there is no closure, or it does not return the loss.
            RuntimeError: if the closure leaves no gradient, or a sparse one. Whatever is raised, also by the closure
                itself, the weights are as before.
        """
        if closure is None:
            raise TypeError(
                "SAM needs two passes: optimizer.step(closure), where the closure clears the gradients, runs forward "
                "and backward and returns the loss; or backward(), ascend(), backward(), descend() in your own loop"
            )
        self._refuse_between_passes("stepped")
        loss = _evaluate(closure)
        try:
            self.ascend()
            with nullcontext() if self.model is None else frozen_batch_norm(self.model):
                _evaluate(closure)
            self.descend()
        finally:
            if self._ascended:
                self.restore()
        return loss

    @torch.no_grad()
    def ascend(self) -> None:
        """Move the weights from w to w + e, along the gradients that the first backward pass left.

        Takes the gradients: they are cleared, for the second backward pass to fill. Where the norm of the gradient is
        zero or not finite, the weights stay. Parameters without gradient are skipped.

        Raises:
            RuntimeError: if called twice, or if there is no gradient, or a sparse one.
            TypeError: if a group's rho is not a number.
            ValueError: if it is negative or not finite.
        """
        if self._ascended:
            raise RuntimeError("ascend() was called twice: call descend() (or restore()) after the second backward()")
        gradients = [
            (_check_rho(group.get("rho", self.defaults["rho"])), parameter, parameter.grad)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if not gradients:
            raise RuntimeError("no parameter has a gradient: run forward and backward() before ascend()")
        for _, parameter, gradient in gradients:
            if gradient.layout is not torch.strided:
                raise RuntimeError(
                    f"SAM needs dense gradients, a parameter of shape {tuple(parameter.shape)} has one of layout "
                    f"{gradient.layout}: build its layer with sparse=False or leave it to an optimizer of its own"
                )
        norm = _total_norm([gradient for _, _, gradient in gradients])
        finite = norm.isfinite()  # not read by the host: no synchronisation
        self._ascended = True
        for rho, parameter, gradient in gradients:
            self._saved.append((parameter, self._copy_of(parameter)))
            scale = (rho / (norm + 1e-12)).to(parameter.device)
            step = torch.where(finite.to(parameter.device), gradient * scale, 0)
            parameter.add_(step.to(parameter.dtype))
        self.base.zero_grad(set_to_none=True)
        # Inside an autocast context the next forward pass would read casts of the weights made before the change.
        torch.clear_autocast_cache()

    def descend(self) -> None:
        """Move back to w, and let the base optimizer step with the gradients that the second backward pass left.

        Raises:
            RuntimeError: if `ascend` was not called, or if no second backward pass has been run.
        """
        if not self._ascended:
            raise RuntimeError("descend() was called without ascend(): call ascend() after the first backward()")
        if all(parameter.grad is None for group in self.param_groups for parameter in group["params"]):
            raise RuntimeError("no parameter has a gradient: run forward and backward() between ascend() and descend()")
        self.restore()
        self.base.step()
        self._opt_called = True  # what a learning rate scheduler looks for: step() was not necessarily called

    @torch.no_grad()
    def restore(self) -> None:
        """Move back to w without a step, after an `ascend` whose second pass failed.

        Raises:
            RuntimeError: if `ascend` was not called.
        """
        if not self._ascended:
            raise RuntimeError("restore() was called without ascend(): the weights are not perturbed")
        for parameter, saved in self._saved:
            parameter.copy_(saved)
        self._saved.clear()
        self._ascended = False
        torch.clear_autocast_cache()  # of casts made at w + e; descend() makes no other before the base has stepped

    def state_dict(self) -> dict[str, Any]:
        """The state of the base optimizer (momentum, learning rates, rho, ...) marked as SAM's.

        Raises:
            RuntimeError: between `ascend` and `descend`, when the weights are perturbed.
        """
        self._refuse_between_passes("saved")
        return {**self.base.state_dict(), "wrapper": {"version": 1, "method": "SAM", "base": type(self.base).__name__}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave; the steps that follow are those of an unbroken run, bit for bit.

        Raises:
            ValueError: if the state is of another method, another base optimizer or other parameter groups.
            RuntimeError: between `ascend` and `descend`.
        """
        self._refuse_between_passes("loaded")
        mine = {"version": 1, "method": "SAM", "base": type(self.base).__name__}
        theirs = state_dict.get("wrapper")
        if theirs is None:
            raise ValueError(
                "the state has no entry 'wrapper', so it is not of SAM but of a plain optimizer: load it with "
                "optimizer.base.load_state_dict(state)"
            )
        if theirs != mine:
            raise ValueError(f"cannot load the state of {_describe(theirs)} into {_describe(mine)}")
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != "wrapper"})

    def _copy_of(self, parameter: Tensor) -> Tensor:
        buffer = self._buffers.get(parameter)
        if buffer is None or (buffer.dtype, buffer.device, buffer.shape) != (
            parameter.dtype,
            parameter.device,
            parameter.shape,
        ):
            buffer = self._buffers[parameter] = torch.empty_like(parameter, requires_grad=False)
        return buffer.copy_(parameter)

    def _refuse_between_passes(self, what: str) -> None:
        if self._ascended:
            raise RuntimeError(f"the weights are perturbed and cannot be {what}: call descend() or restore() first")


def _check_base(base: object) -> None:
    right = "wrap an optimizer that is built already: SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05)"
    if isinstance(base, type):
        raise TypeError(f"got the class {base.__name__}; {right}")
    if not isinstance(base, torch.optim.Optimizer):
        raise TypeError(f"got {type(base).__name__}; {right}")
    if isinstance(base, SAM):
        raise TypeError(f"got an optimizer that is wrapped in SAM already; {right}")
    if isinstance(base, torch.optim.LBFGS):
        raise TypeError("LBFGS evaluates its closure as often as it likes, so SAM cannot drive it; use SGD or AdamW")
    if "rho" in base.defaults:
        raise TypeError(
            f"{type(base).__name__} has a setting of its own called rho, and the two would share one entry of the "
            "parameter groups; wrap an optimizer without one, such as SGD or AdamW"
        )


def _set_rho(group: dict[str, Any], rho: float) -> None:
    """Give a parameter group `rho`, unless the caller has put another there.

    What SAM writes it writes twice, so that the next SAM around the same base can tell the two apart, also after the
    group has been through a `state_dict`.
    """
    if "rho" not in group or ("rho_by_sam" in group and group["rho"] == group["rho_by_sam"]):
        group["rho"] = group["rho_by_sam"] = rho
    _check_rho(group["rho"])


def _check_rho(rho: float) -> float:
    try:
        finite = math.isfinite(rho)
    except TypeError as error:
        raise TypeError(f"rho must be a number, such as 0.05, got {rho!r} of type {type(rho).__name__}") from error
    if not (finite and rho >= 0):
        raise ValueError(f"rho must be a finite number of at least 0 (0 is the base optimizer), got {rho}")
    return rho


def _describe(wrapper: dict[str, Any]) -> str:
    return f"{wrapper.get('method')}({wrapper.get('base')}), version {wrapper.get('version')}"


def _evaluate(closure: Closure) -> Tensor | float:
    with torch.enable_grad():
        loss = closure()
    if not isinstance(loss, Tensor | float | int):
        raise TypeError(f"the closure must return the loss, a tensor or a number, got {type(loss).__name__}")
    return loss.detach() if isinstance(loss, Tensor) else loss


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """L2 norm over all gradients, on the device of the first, accumulated in float32 or better."""
    dtypes = [torch.promote_types(gradient.dtype, torch.float32) for gradient in gradients]
    norms = [torch.linalg.vector_norm(gradient, dtype=dtype) for gradient, dtype in zip(gradients, dtypes, strict=True)]
    widest = torch.float64 if torch.float64 in dtypes else torch.float32
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(gradients[0].device, widest) for norm in norms]))
    return total
