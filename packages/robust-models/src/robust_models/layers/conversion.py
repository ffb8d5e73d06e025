"""What all conversions share: which layers they change, how one layer takes the place of another, and the record."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did to a model; `model.robust_conversions` lists them in order.

    Args:
        name: of the conversion, such as "permuted_adain".
        layers: dotted names of the layers that were changed, "" for the model itself.
        options: with which it was called.
    """

    name: str
    layers: tuple[str, ...]
    options: Mapping[str, object]


def is_batch_norm(module: nn.Module) -> bool:
    """Whether the module is a batch norm: 1-D, 2-D, 3-D, synchronised, or fused with an activation as in timm."""
    return isinstance(module, _BatchNorm)


def find_layers(
    model: nn.Module,
    wanted: Callable[[nn.Module], bool],
    *,
    what: str,
    done: Callable[[nn.Module], bool],
    include: str | None = None,
    exclude: str | None = None,
) -> dict[str, nn.Module]:
    """Find the layers to convert, by every dotted name they have; "" is the model itself.

    What is done already is left alone, so that a conversion may be repeated; nothing inside of it or of a layer to
    convert is looked at. A layer in several places is taken if `include` matches one of its names and `exclude` none.

    Args:
        model: where to look.
        wanted: which layers can be converted.
        what: their description, for the message.
        done: which layers are the result of this conversion.
        include: regular expression, searched for in the dotted names; None takes all.
        exclude: regular expression of the names to leave out.

    Raises:
        ValueError: if there is no such layer, and none that was converted before.
    """

    def is_chosen(names: Iterable[str]) -> bool:
        included = include is None or any(re.search(include, name) for name in names)
        return included and not (exclude is not None and any(re.search(exclude, name) for name in names))

    found: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    repeated = False
    for name, module in _walk("", model, lambda module: done(module) or wanted(module)):
        if done(module):
            repeated = repeated or is_chosen([name])
        elif wanted(module):
            found.setdefault(id(module), []).append(name)
            modules[id(module)] = module
    chosen = {name: modules[key] for key, names in found.items() if is_chosen(names) for name in names}
    if not chosen and not repeated:
        raise ValueError(
            f"{type(model).__name__} has no {what} to convert: {len(found)} found, of which include={include!r} and "
            f"exclude={exclude!r} leave none"
        )
    return chosen


def replace_layers(model: nn.Module, replacements: Mapping[str, nn.Module]) -> nn.Module:
    """Put modules in the places of those with these names, and return the model: another one where "" is replaced."""
    for name, module in replacements.items():
        parent, _, key = name.rpartition(".")
        if name:
            model.get_submodule(parent).add_module(key, module)
    replaced = replacements.get("", model)
    if replaced is not model and hasattr(model, "robust_conversions"):
        replaced.robust_conversions = model.robust_conversions
    return replaced


def take_place(new: nn.Module, old: nn.Module) -> nn.Module:
    """Give a new module the mode of the old one and its hooks, whose handles still remove them; returns the new one."""
    new.train(old.training)
    for name, value in vars(old).items():
        if name.startswith(("_forward_", "_backward_", "_is_full_backward_")):
            vars(new)[name] = value
    return new


def like_tensors_of(layer: nn.Module, model: nn.Module) -> nn.Module:
    """Move a new layer to the device and floating type of the model's first floating tensor, and return it."""
    tensors = (*model.parameters(), *model.buffers())
    first = next((each for each in tensors if each.is_floating_point()), None)
    return layer if first is None else layer.to(first)


def record(model: nn.Module, name: str, layers: Mapping[str, object], options: Mapping[str, object]) -> nn.Module:
    """Note in `model.robust_conversions` what was done, if anything was, and return the model."""
    if layers:
        done = Conversion(name=name, layers=tuple(layers), options=dict(options))
        model.robust_conversions = [*conversions(model), done]  # type: ignore[assignment]
    return model


def forget(model: nn.Module, name: str) -> nn.Module:
    """Take a conversion that was reverted out of `model.robust_conversions`, and return the model."""
    left = [each for each in conversions(model) if each.name != name]
    if left:
        model.robust_conversions = left  # type: ignore[assignment]
    elif hasattr(model, "robust_conversions"):
        del model.robust_conversions
    return model


def conversions(model: nn.Module) -> list[Conversion]:
    """What was done to the model so far, the first first."""
    return list(getattr(model, "robust_conversions", []))


def new_generator() -> torch.Generator:
    """A generator of random numbers on the CPU whose seed comes from torch's own, so that `manual_seed` sets both."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))


def _walk(name: str, module: nn.Module, last: Callable[[nn.Module], bool]) -> Iterator[tuple[str, nn.Module]]:
    """All names and modules, but none inside of the last ones."""
    yield name, module
    if not last(module):
        for key, child in module._modules.items():  # unlike named_children, a module in two places comes twice
            if child is not None:
                yield from _walk(f"{name}.{key}" if name else key, child, last)
