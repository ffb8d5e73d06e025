"""Running averages of a model's weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robust_optim.decay import Decay, check_decay
from robust_optim.state_dicts import differences, is_mixable, wide_dtype

BufferRule = Literal["copy", "average"]


class WeightAverage:
    """Follow a model through training with an average of its weights, and lend it that average for evaluation.

    Update number k = 1, 2, ... copies the weights while k <= `start`; afterwards every `every`-th update averages:

        average <- d_t * average + (1 - d_t) * weights,    t = 0, 1, 2, ...

    | average | settings |
    |---|---|
    | EMA | `decay=0.999`, or `RatioWarmUp(0.9999)`, or timm's `PowerWarmUp(0.9999)` |
    | late EMA, Wang et al., ICML 2023, arXiv:2302.04638 | `decay=RatioWarmUp(0.995), start=round(0.025 * updates)` |
    | SWA, Izmailov et al., UAI 2018, arXiv:1803.05407 | `decay=equal_weights`, and `start` and `every` in updates |

    SWA over the ends of epochs 161, 162, ... is `start=160 * len(loader), every=len(loader)`; after training, call
    `reestimate_batch_norm` inside `applied()`.

    Differs from `torch.optim.swa_utils.AveragedModel` and timm's `ModelEmaV3`: there is no second model, only one
    tensor per weight, and `applied()` exchanges contents in place, so DDP, compiled models and CUDA graphs need not
    know. Tied weights are averaged once. Start, spacing and the position in the warm-up are part of the state, so a
    resumed run goes on bit for bit. Weights in low precision have an average in float32, because the step of an average
    is far below their resolution. Ranks of a distributed run hold the same weights and so the same average, without
    communication; buffers are those of the rank.

    Args:
        model: whose weights to average, frozen ones included. Names are those of its state dict: give `ddp.module` for
            names without `module.`. It may move to another device or type later; the average follows. Buffers that
            its state dict leaves out are left alone.
        decay: the share of the old average that stays, in [0, 1]; or a rule for it, a function of t.
        start: how many updates copy before averaging begins.
        every: distance of two averaged updates; those between do nothing.
        buffers: "copy" the buffers, such as statistics of batch norms, with every averaged update; or "average" those
            that hold floating numbers, like weights. Integers are always copied.

    Attributes:
        updates: how many updates were made.

    Raises:
        TypeError: if `model` is not a module, or `decay` neither a number nor a function.
        ValueError: if a setting is out of range, or the model has weights that are lazy or not in its state dict.

    Examples:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 0.0)
        >>> average = WeightAverage(model, decay=0.5)
        >>> for weight in [4.0, 8.0]:
        ...     _ = nn.init.constant_(model.weight, weight)  # stands for optimizer.step()
        ...     average.update()
        >>> with average.applied():
        ...     model.weight.item()
        5.0
        >>> model.weight.item()
        8.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float | Decay,
        start: int = 0,
        every: int = 1,
        buffers: BufferRule = "copy",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be the torch.nn.Module whose weights to average, got {type(model)}")
        if not callable(decay):
            if not isinstance(decay, int | float):
                raise TypeError(f"decay must be a number such as 0.999 or a function of t, got {decay!r}")
            check_decay(decay)
        if not (start >= 0 and every >= 1 and start == int(start) and every == int(every)):
            raise ValueError(f"start and every are whole numbers of updates, at least 0 and 1, got {start} and {every}")
        if buffers not in get_args(BufferRule):
            raise ValueError(f"buffers must be one of {get_args(BufferRule)}, got {buffers!r}")
        names = model.state_dict(keep_vars=True).keys()
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if is_lazy(tensor):
                raise ValueError(f"{name!r} has no shape yet: run one batch through the model before averaging it")
            if isinstance(tensor, nn.Parameter) and name not in names:
                raise ValueError(
                    f"the state dict of the model has no entry for its parameter {name!r}, so an average could not be "
                    "saved: give the module inside of the wrapper"
                )
        self.model = model
        self.decay = decay if callable(decay) else float(decay)
        self.start = int(start)
        self.every = int(every)
        self.buffers: BufferRule = buffers
        self.updates = 0
        self._saved_buffers = {name for name, _ in model.named_buffers() if name in names}
        self._applied = False
        self._average = {
            name: tensor.detach().to(self._dtype(tensor), copy=True) for name, tensor in self._online().items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are now into the average; call it once after every step of the optimizer.

        Raises:
            RuntimeError: inside `applied`, or if the model's parameters are not those it had.
            ValueError: if the rule for the decay gives something else than a share.
        """
        self._refuse_while_applied("updated")
        averaged_updates, between = divmod(self.updates + 1 - self.start, self.every)
        copies = self.updates < self.start
        if copies or not between:
            keep = 0.0 if copies else self._share(averaged_updates - 1)
            self._take(self._checked(), keep)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the averaged weights in the model for the length of a `with` block.

        Contents are exchanged tensor by tensor, in the storage they have, without a copy of the model; only low
        precision needs a copy, of the online weights. Afterwards the online weights are back bit for bit, also after
        an exception. What changes inside, such as re-estimated statistics, changes the average: train outside.

        Raises:
            RuntimeError: if applied already, or if the model's parameters are not those it had.
        """
        self._refuse_while_applied("applied again")
        online = self._checked()
        kept: dict[str, Tensor | None] = {}  # online weights that do not fit in the place of their average
        self._applied = True
        try:
            with torch.no_grad():
                for name, tensor in online.items():
                    kept[name] = self._lend(name, tensor)
            torch.clear_autocast_cache()  # of casts of the online weights
            yield
        finally:
            with torch.no_grad():
                online = self._online()  # anew: a move to another device makes new buffers
                for name in reversed([name for name in kept if name in online]):
                    self._take_back(name, online[name], kept[name])
            torch.clear_autocast_cache()
            self._applied = False

    @torch.no_grad()
    def model_state_dict(self) -> dict[str, Any]:
        """A state dict of the model with the averaged weights, for export: all its keys, in copies of its types.

        Raises:
            RuntimeError: inside `applied`, where it is `model.state_dict()`; or if the model's parameters are not those
                it had.
        """
        self._refuse_while_applied("exported")
        averages = {
            id(tensor): self._average[name].to(tensor.dtype, copy=True) for name, tensor in self._checked().items()
        }
        state: dict[str, Any] = self.model.state_dict(keep_vars=True)
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = averages[id(value)] if id(value) in averages else value.detach().clone()
        return state

    def state_dict(self) -> dict[str, Any]:
        """The average and its position, of plain numbers, strings and tensors; the tensors are the live ones.

        Raises:
            RuntimeError: inside `applied`.
        """
        self._refuse_while_applied("saved")
        return {"version": 1, "rule": self._rule(), "updates": self.updates, "average": dict(self._average)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, bit for bit. The online weights are not part of it.

        Raises:
            ValueError: if the state is of another rule or another model; then nothing is loaded.
            RuntimeError: inside `applied`.
        """
        self._refuse_while_applied("loaded")
        if state_dict.keys() != {"version", "rule", "updates", "average"} or state_dict["version"] != 1:
            raise ValueError(
                "this is not what WeightAverage.state_dict() gave: load an exported model into the model itself and "
                "build the average around it"
            )
        if state_dict["rule"] != self._rule():
            raise ValueError(f"the state is of an average with {state_dict['rule']}, this one has {self._rule()}")
        if found := differences(self._average, state_dict["average"], ("shape",)):
            raise ValueError(f"the state is of another model: {found}")
        for name, average in self._average.items():
            average.copy_(state_dict["average"][name])
        self.updates = state_dict["updates"]

    def _online(self) -> dict[str, Tensor]:
        """The model's own tensors, each once."""
        buffers = {name: buffer for name, buffer in self.model.named_buffers() if name in self._saved_buffers}
        return {**dict(self.model.named_parameters()), **buffers}

    def _checked(self) -> dict[str, Tensor]:
        """The model's own tensors if they are those of the average, which follows them to their device and type."""
        online = self._online()
        if found := differences(self._average, online, ("shape",)):
            raise RuntimeError(f"the model has changed since its average was begun: {found}. Begin a new average")
        for name, tensor in online.items():
            self._average[name] = self._average[name].to(tensor.device, self._dtype(tensor))
        return online

    def _is_averaged(self, tensor: Tensor) -> bool:
        return is_mixable(tensor) and (self.buffers == "average" or isinstance(tensor, nn.Parameter))

    def _dtype(self, tensor: Tensor) -> torch.dtype:
        return wide_dtype(tensor.dtype) if self._is_averaged(tensor) else tensor.dtype

    def _share(self, t: int) -> float:
        return check_decay(self.decay(t) if callable(self.decay) else self.decay)

    def _take(self, online: dict[str, Tensor], keep: float) -> None:
        moved = {name for name, tensor in online.items() if keep > 0 and self._is_averaged(tensor)}
        pairs = [(self._average[name], tensor.detach(), name in moved) for name, tensor in online.items()]
        for averages, tensors, move in _kernel_groups(pairs):
            if not move:
                torch._foreach_copy_(averages, tensors)
            elif averages[0].dtype == tensors[0].dtype:
                torch._foreach_lerp_(averages, tensors, 1 - keep)
            else:  # one at a time: a cast of the whole model would take its memory again
                for average, tensor in zip(averages, tensors, strict=True):
                    average.lerp_(tensor.to(average.dtype), 1 - keep)

    def _lend(self, name: str, tensor: Tensor) -> Tensor | None:
        average, online = self._average[name], tensor.clone()
        tensor.copy_(average)
        if average.dtype != tensor.dtype:
            return online
        average.copy_(online)
        return None

    def _take_back(self, name: str, tensor: Tensor, kept: Tensor | None) -> None:
        average, lent = self._average[name], tensor.clone()
        if kept is None:
            tensor.copy_(average)
            average.copy_(lent)
        else:  # the average is wider than what was lent: only what has changed meanwhile counts
            average.copy_(torch.where(lent == average.to(lent.dtype), average, lent.to(average.dtype)))
            tensor.copy_(kept)

    def _rule(self) -> dict[str, str | int]:
        decay = self.decay
        if callable(decay) and not is_dataclass(decay):  # whose repr may hold an address
            decay_name = getattr(decay, "__qualname__", type(decay).__qualname__)
        else:
            decay_name = repr(decay)
        return {"decay": decay_name, "start": self.start, "every": self.every, "buffers": self.buffers}

    def _refuse_while_applied(self, what: str) -> None:
        if self._applied:
            raise RuntimeError(f"the average is applied to the model and cannot be {what}: leave the with block first")


def _kernel_groups(
    pairs: Iterable[tuple[Tensor, Tensor, bool]],
) -> Iterator[tuple[list[Tensor], list[Tensor], bool]]:
    """Lists that one multi-tensor kernel can take: of one device, one type on each side and one treatment."""
    groups: dict[tuple[object, ...], tuple[list[Tensor], list[Tensor], bool]] = {}
    for average, tensor, move in pairs:
        key = (average.device, average.dtype, tensor.dtype, move)
        averages, tensors, _ = groups.setdefault(key, ([], [], move))
        averages.append(average)
        tensors.append(tensor)
    yield from groups.values()
