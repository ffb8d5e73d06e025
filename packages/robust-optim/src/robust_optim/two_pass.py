"""What the optimisers share that evaluate the loss twice: at the weights, and at weights nearby."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robust_optim.batch_norm import frozen_batch_norm
from robust_optim.checks import check_parts
from robust_optim.distributed import Sync, average_gradients, no_sync, resolve_sync
from robust_optim.random_state import RandomState
from robust_optim.tensor_lists import gradient_of, local, owned
from robust_optim.wrapper import Wrapper

Closure = Callable[[], Tensor | float]
Clip = Callable[[list[nn.Parameter]], object]
Choice = Callable[[str, nn.Parameter], bool]
Scaler = torch.amp.GradScaler


class TwoPass(Wrapper, ABC):
    """Let a built optimizer step with a gradient that was taken at perturbed weights.

    One update is: forward and backward at the weights w; `ascend` to w + e; forward and backward there; `descend`
    back to w, where the base optimizer steps. What e is, and which gradient the base gets, is the method's. All of it
    is homogeneous in the gradients, so a loss scale changes nothing, and the base unscales them once at the end.

    The groups and their state are the base optimizer's own, so schedulers may be given either of the two. Weights are
    restored by copying into the same storage: exactly, on every rank.

    Args:
        base: the optimizer that makes the step, already built: `torch.optim.SGD(model.parameters(), lr=0.1)`.
        radius: how far the weights are moved, at least 0; 0 gives the base optimizer, in one pass. A parameter group in
            which you put one of your own keeps it; the others get this one, also where an earlier wrapper around the
            same base wrote another. A schedule may change it there.
        model: the network: its batch norms keep their running statistics in the second pass of `step` (see
            `frozen_batch_norm`), and under DistributedDataParallel gradients are not averaged in passes that do not
            need it. It also gives the names for `perturb`. None leaves all of that to the closure.
        scaler: the `torch.amp.GradScaler` of fp16 training, used by this optimizer alone. The closure calls
            `scaler.scale(loss).backward()`; unscaling, stepping and updating it is done here.
        sync: over ranks, "per_rank" moves the weights of every rank along its own gradient (m-sharpness with m = the
            rank's batch) and averages once; "global" moves all alike, as one process with the whole batch would, and
            averages twice. None is the method's usual one. Without a `model` that is distributed it means nothing.
        clip: called once per update with the parameters that have a gradient, when that is final and unscaled:
            `lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 1.0)`.
        perturb: `perturb(name, parameter)` says which parameters are moved, all by default; the norm is that of their
            gradients. `lambda name, parameter: parameter.ndim == 1` is sharpness of norms and biases only, as in
            Mueller et al., NeurIPS 2023, arXiv:2306.04226. It needs `model`.
        replay_random: give the second pass the random numbers of the first (torch's own generators: dropout,
            stochastic depth), so that both see the same function.
        **settings: attributes of the method.

    Raises:
        TypeError: if `base` is a class, a list of parameters, or an optimizer that cannot be wrapped (LBFGS; or one
            with a setting of the radius' name, such as Adadelta); if a radius is not a number; or if `model`, `scaler`,
            `clip` or `perturb` is something else.
        ValueError: if a radius is negative or not finite, or `sync` is unknown.
    """

    usual_sync: ClassVar[Sync] = "per_rank"
    combines: ClassVar[bool] = False  # whether the base gets a combination of the gradients of both passes
    several_closures: bool = True  # whether a step may be given one closure per part of the batch

    model: nn.Module | None
    scaler: Scaler | None
    sync: Sync
    clip: Clip | None
    perturb: Choice | None
    replay_random: bool

    def __init__(
        self,
        base: torch.optim.Optimizer,
        radius: float,
        *,
        model: nn.Module | None = None,
        scaler: Scaler | None = None,
        sync: Sync | None = None,
        clip: Clip | None = None,
        perturb: Choice | None = None,
        replay_random: bool = True,
        **settings: object,
    ) -> None:
        check_parts(self._name, model, scaler, clip, perturb)
        super().__init__(
            base,
            radius,
            model=model,
            scaler=scaler,
            sync=resolve_sync(sync, self.usual_sync, model),
            clip=clip,
            perturb=perturb,
            replay_random=replay_random,
            **settings,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set up the attributes that a copy or a pickle does not carry."""
        self._moved: list[tuple[nn.Parameter, Tensor]] = []  # parameters and their weights before the ascent
        self._first: dict[nn.Parameter, Tensor] = {}  # gradients of the first pass, where the method combines
        self._pending: dict[nn.Parameter, Tensor] = {}  # directions that count once the base has stepped
        self._buffers: dict[nn.Parameter, Tensor] = {}  # where weights are kept during the ascent, allocated once
        self._names: dict[nn.Parameter, str] = {}
        super().__setstate__(state)

    # What a method defines

    @abstractmethod
    def _perturbation(
        self, parameters: list[nn.Parameter], gradients: list[Tensor], radii: list[float]
    ) -> tuple[list[Tensor], Tensor]:
        """The move e of every parameter, in new tensors, and whether all of it is finite, a scalar on the device."""

    def _combine(self, parameters: list[nn.Parameter], first: list[Tensor], second: list[Tensor]) -> None:
        """Turn the gradients `second`, at w + e, in place into those that the base gets; `first` are those at w."""

    def _single(self, parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
        """Turn the gradients at w in place into those that the base gets, in an update of one pass."""

    @property
    def _due(self) -> bool:
        """Whether the method perturbs in the coming update."""
        return True

    # The update

    @property
    def perturbs(self) -> bool:
        """Whether the coming update takes two passes, with `ascend` between them; otherwise `descend` alone."""
        return self._due and any(self._radius_of(group) > 0 for group in self.param_groups)

    @property
    def phase(self) -> Literal["ascent", "descent"]:
        """What the pass that is running or comes next is for: to move the weights, or to step."""
        return "descent" if self._ascended or not self.perturbs else "ascent"

    def step(self, closure: Closure | Sequence[Closure] | None = None) -> Tensor | float:  # type: ignore[override]
        """Evaluate `closure` at the weights and at the perturbed weights, then let the base optimizer step.

        Args:
            closure: clears the gradients, runs forward and backward and returns the loss, as for
                `torch.optim.LBFGS`. It is called once per pass and must see the same batch both times; `phase` tells it
                the pass. Several closures, one per part of the batch, perturb each part on its own and average the
                gradients that come out: m-sharpness, Andriushchenko & Flammarion, ICML 2022, arXiv:2206.06232.

        Returns:
            The loss of the first pass, at the weights before the step, detached: this rank's own, and the mean over
            several closures.

        Raises:
            TypeError: if there is no closure, or it does not return the loss.
            RuntimeError: if the closure leaves no gradient, or a sparse one. Whatever is raised, also by the closure
                itself, the weights are as before.
        """
        closures = self._closures(closure)
        self._refuse_between_passes("stepped")
        apart = self.sync == "per_rank" and (self.combines or len(closures) > 1)  # averaged here, not by the model
        run = self._two_passes if self.perturbs else self._one_pass
        losses: list[Tensor | float] = []
        totals: dict[nn.Parameter, Tensor] = {}
        try:
            for one in closures:
                losses.append(run(one, apart))
                if len(closures) > 1:
                    self._accumulate(totals, 1 / len(closures))
        except BaseException:
            if self._ascended:
                self.restore()
            raise
        for parameter, gradient in totals.items():
            parameter.grad = gradient
        self._finish(apart)
        return losses[0] if len(losses) == 1 else sum(losses) / len(losses)

    def _one_pass(self, closure: Closure, apart: bool) -> Tensor | float:
        with no_sync(self.model if apart else None):
            loss = _evaluate(closure)
        self._adjust_single("in the closure")
        return loss

    def _two_passes(self, closure: Closure, apart: bool) -> Tensor | float:
        random = self._random_state()
        with no_sync(self.model if self.sync == "per_rank" else None):
            loss = _evaluate(closure)
        self.ascend()
        if random:
            random.set()
        with no_sync(self.model if apart else None), self._frozen_batch_norm():
            _evaluate(closure)
        self._return_and_combine("in the second call of the closure")
        return loss

    @torch.no_grad()
    def ascend(self) -> None:
        """Move the weights from w to w + e, along the gradients that the first backward pass left.

        Takes the gradients: they are cleared, for the second backward pass to fill. Where the norm of the gradient is
        zero or not finite, the weights stay. Parameters without gradient are skipped.

        Raises:
            RuntimeError: if called twice, in an update of one pass, or if there is no gradient, or a sparse one.
            TypeError: if the radius of a group is not a number.
            ValueError: if it is negative or not finite.
        """
        if self._ascended:
            raise RuntimeError("ascend() was called twice: call descend() (or restore()) after the second backward()")
        if not self._due:
            raise RuntimeError(f"this update of {self._name} takes one pass: call ascend() only if optimizer.perturbs")
        parameters = self._with_gradient("before ascend()")
        radius_of = {p: self._radius_of(group) for group in self.param_groups for p in group["params"]}
        moved = [parameter for parameter in parameters if self._is_perturbed(parameter)]
        if not moved:
            raise RuntimeError("none of the parameters that are to be perturbed has a gradient")
        self._pending = {}
        moves, finite = self._perturbation(moved, [gradient_of(p) for p in moved], [radius_of[p] for p in moved])
        weights = [local(parameter) for parameter in moved]
        moves = [local(move).to(weight.dtype) for move, weight in zip(moves, weights, strict=True)]
        if not (finite.is_cpu and finite):  # on another device it is not read by the host: no synchronisation
            for move in moves:
                move.masked_fill_(~finite.to(move.device), 0)
        self._moved = [(parameter, self._copy_of(parameter)) for parameter in moved]
        self._ascended = True
        torch._foreach_add_(weights, moves)
        if self.combines:
            self._first = {parameter: owned(gradient_of(parameter)) for parameter in parameters}
        self.base.zero_grad(set_to_none=True)
        # Inside an autocast context the next forward pass would read casts of the weights made before the change.
        torch.clear_autocast_cache()

    @torch.no_grad()
    def descend(self) -> None:
        """Move back to w, and let the base optimizer step with the gradients that the second backward pass left.

        In an update of one pass (see `perturbs`) it needs no `ascend`.

        Raises:
            RuntimeError: if `ascend` was not called, or if no second backward pass has been run.
        """
        if self._ascended:
            self._return_and_combine("between ascend() and descend()")
        elif self.perturbs:
            raise RuntimeError("descend() was called without ascend(): call ascend() after the first backward()")
        else:
            self._adjust_single("before descend()")
        self._finish(apart=self.combines and self.sync == "per_rank")

    @torch.no_grad()
    def restore(self) -> None:
        """Move back to w without a step, after an `ascend` whose second pass failed.

        Raises:
            RuntimeError: if `ascend` was not called.
        """
        if not self._ascended:
            raise RuntimeError("restore() was called without ascend(): the weights are not perturbed")
        torch._foreach_copy_([local(p) for p, _ in self._moved], [local(saved) for _, saved in self._moved])
        self._moved, self._first = [], {}
        self._ascended = False
        torch.clear_autocast_cache()  # of casts made at w + e; descend() makes no other before the base has stepped

    # Parts of the update

    @torch.no_grad()
    def _return_and_combine(self, where: str) -> None:
        self._with_gradient(where)
        first = self._first
        self.restore()
        both = [parameter for parameter in first if parameter.grad is not None]
        if both:
            self._combine(both, [first[parameter] for parameter in both], [gradient_of(p) for p in both])

    @torch.no_grad()
    def _adjust_single(self, where: str) -> None:
        parameters = self._with_gradient(where)
        self._single(parameters, [gradient_of(parameter) for parameter in parameters])

    def _finish(self, apart: bool) -> None:
        """Let the base step with the gradients as they are, unscaled and clipped; count it unless it was skipped."""
        if apart:
            average_gradients(self._parameters(), self.model)
        parameters = [parameter for parameter in self._parameters() if parameter.grad is not None]
        if self.scaler is not None and self.clip is not None:
            self.scaler.unscale_(self.base)
        if self.clip is not None:
            self.clip(parameters)
        if self.scaler is None:
            self.base.step()
            stepped = True
        else:
            scale = self.scaler.get_scale()
            self.scaler.step(self.base)
            self.scaler.update()
            stepped = self.scaler.get_scale() >= scale  # it falls exactly when a gradient was not finite
        if stepped:
            self.directions.update(self._pending)
            self.updates += 1
        self._pending = {}
        self._opt_called = True  # what a learning rate scheduler looks for: step() was not necessarily called

    def _accumulate(self, totals: dict[nn.Parameter, Tensor], share: float) -> None:
        """Add this share of the gradients to `totals`, and clear them."""
        for parameter in self._with_gradient("in every closure"):
            gradient = gradient_of(parameter).detach() * share
            totals[parameter] = totals[parameter].add_(gradient) if parameter in totals else gradient
        self.base.zero_grad(set_to_none=True)

    def _closures(self, closure: Closure | Sequence[Closure] | None) -> list[Closure]:
        closures = list(closure) if isinstance(closure, Sequence) else [closure] if callable(closure) else []
        if not closures or not all(callable(one) for one in closures):
            raise TypeError(
                f"{self._name} needs two passes: optimizer.step(closure), where the closure clears the gradients, runs "
                "forward and backward and returns the loss; or backward(), ascend(), backward(), descend() in your own "
                "loop"
            )
        if len(closures) > 1 and not self.several_closures:
            raise TypeError(f"{self._name} with these settings takes one closure, got {len(closures)}")
        return closures

    def _random_state(self) -> RandomState | None:
        return RandomState(parameter.device for parameter in self._parameters()) if self.replay_random else None

    def _frozen_batch_norm(self) -> AbstractContextManager[None]:
        return nullcontext() if self.model is None else frozen_batch_norm(self.model)

    def _with_gradient(self, where: str) -> list[nn.Parameter]:
        parameters = [parameter for parameter in self._parameters() if parameter.grad is not None]
        if not parameters:
            raise RuntimeError(f"no parameter has a gradient: run forward and backward() {where}")
        for parameter in parameters:
            if gradient_of(parameter).layout is not torch.strided:
                raise RuntimeError(
                    f"{self._name} needs dense gradients, a parameter of shape {tuple(parameter.shape)} has one of "
                    f"layout {gradient_of(parameter).layout}: build its layer with sparse=False or leave it to an "
                    "optimizer of its own"
                )
        return parameters

    def _is_perturbed(self, parameter: nn.Parameter) -> bool:
        return self.perturb is None or self.perturb(self._name_of(parameter), parameter)

    def _name_of(self, parameter: nn.Parameter) -> str:
        if parameter not in self._names and self.model is not None:
            self._names = {parameter: name for name, parameter in self.model.named_parameters()}
        if parameter not in self._names:
            raise ValueError(f"a parameter of shape {tuple(parameter.shape)} of the optimizer is not one of the model")
        return self._names[parameter]

    def _copy_of(self, parameter: nn.Parameter) -> Tensor:
        buffer = self._buffers.get(parameter)
        if buffer is None or (buffer.dtype, buffer.device, buffer.shape) != (
            parameter.dtype,
            parameter.device,
            parameter.shape,
        ):
            buffer = self._buffers[parameter] = torch.empty_like(parameter, requires_grad=False)
        return buffer.copy_(parameter)


def _evaluate(closure: Closure) -> Tensor | float:
    with torch.enable_grad():
        loss = closure()
    if not isinstance(loss, Tensor | float | int):
        raise TypeError(f"the closure must return the loss, a tensor or a number, got {type(loss).__name__}")
    return loss.detach() if isinstance(loss, Tensor) else loss
