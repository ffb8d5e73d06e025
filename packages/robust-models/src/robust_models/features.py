"""Intermediate features of any timm model: what leaves its blocks."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timm.models._features import feature_take_indices
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class BlockOutputs:
    """What the blocks of a model gave in one forward pass.

    Args:
        outputs: for every block, by its name and in the order of the computation, what left it, in its own layout:
            tokens (N, T, C) with the class token first where there is one, maps (N, h, w, C) in Swin, (N, C, h, w) in
            convolutional networks. A block that ran twice is there twice, as "name" and "name (2)".
        logits: of the same pass (N, K), or whatever else the model answers.
    """

    outputs: Mapping[str, Tensor]
    logits: Any


def block_outputs(
    model: nn.Module,
    images: Tensor,
    *,
    indices: int | Sequence[int] | None = None,
    pattern: str | None = None,
) -> BlockOutputs:
    r"""Run the model once and return what left its blocks, with the gradients that it has.

    The blocks are the modules that timm names in the `feature_info` of a model, and where these are stages of blocks,
    the blocks in them: all blocks of ViT, DeiT, Swin, XCiT, CaiT, ConvNeXt and of our transformers, without class
    attention; the stages of ResNets. `pattern` asks for other modules.

    The model is called as it is, in its own mode, behind its own normalisation and through `DistributedDataParallel`;
    its hooks are as before afterwards. Nothing is detached: a loss of the outputs trains the model. timm's
    `forward_intermediates` differs: it gives maps in one layout, of the stages of Swin, without class tokens, without
    the logits, and past the `forward` of a wrapper.

    Args:
        model: images to logits.
        images: (N, C, H, W), as the model wants them.
        indices: which of the blocks; a number n means the last n, negative numbers in a sequence count from the end,
            None means all.
        pattern: regular expression that the whole names of other modules match, such as r"blocks\.\d+\.mlp"; `indices`
            count what it matches.

    Raises:
        TypeError: if the model is no module.
        ValueError: if it does not say what its blocks are, nothing fits the pattern, or an index is out of range; if a
            block does not run, as inside of a compiled model, gives something else than a tensor, or is overwritten by
            a layer behind it.

    Examples:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
        >>> found = block_outputs(model, torch.rand(2, 3, 32, 32), indices=[0, -1])
        >>> {name: tuple(output.shape) for name, output in found.outputs.items()}
        {'blocks.0': (2, 5, 192), 'blocks.11': (2, 5, 192)}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"blocks are found in a torch.nn.Module, got {type(model).__name__}: pass the model itself")
    names = _chosen(_block_names(model) if pattern is None else _matching(model, pattern), indices)
    seen: list[tuple[str, Any, int]] = []
    with _watched(model, names, seen):
        logits = model(images)
    if missing := [name for name in names if name not in {name for name, _, _ in seen}]:
        raise ValueError(
            f"{missing[0]} and {len(missing) - 1} more did not run, or out of sight: read features from the model as "
            "it was before torch.compile, and ask for modules that are called"
        )
    outputs: dict[str, Tensor] = {}
    for name, output, version in seen:
        if _version(output) != version:
            raise ValueError(f"what leaves {name} is overwritten by a layer behind it: ask for that layer")
        numbered = itertools.chain((name,), (f"{name} ({number})" for number in itertools.count(2)))
        outputs[next(each for each in numbered if each not in outputs)] = output
    return BlockOutputs(outputs=outputs, logits=logits)


def _block_names(model: nn.Module) -> list[str]:
    """The names of the blocks that a model of timm, or one inside of a wrapper, declares."""
    described = ((prefix, module) for prefix, module in model.named_modules() if "feature_info" in vars(module))
    prefix, network = next(described, ("", model))
    names = []
    for info in getattr(network, "feature_info", ()):
        name = f"{prefix}.{info['module']}".removeprefix(".")
        try:
            module = model.get_submodule(name)
        except AttributeError as error:
            raise ValueError(
                f"timm describes a module {name!r} that {type(network).__name__} does not have: say by pattern which "
                "modules are its blocks"
            ) from error
        inner = module if isinstance(module, nn.ModuleList) else getattr(module, "blocks", None)
        within = name if inner is module else f"{name}.blocks"
        names += [f"{within}.{key}" for key, _ in inner.named_children()] if isinstance(inner, nn.Module) else [name]
    if not names:
        raise ValueError(
            f"{type(model).__name__} does not describe its blocks, as models of timm do: say by pattern which modules "
            "they are"
        )
    return names


def _matching(model: nn.Module, pattern: str) -> list[str]:
    names = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    if not names:
        some = ", ".join([name for name, _ in model.named_modules() if name][:4])
        raise ValueError(f"no module of {type(model).__name__} matches {pattern!r}: it has {some}, ...")
    return names


def _chosen(names: list[str], indices: int | Sequence[int] | None) -> list[str]:
    chosen = [*indices] if isinstance(indices, Sequence) else indices
    try:
        take, _ = feature_take_indices(len(names), chosen)
    except AssertionError as error:
        raise ValueError(f"{error}: there are {len(names)} blocks, {names[0]} to {names[-1]}") from error
    return [names[index] for index in take]


@contextlib.contextmanager
def _watched(model: nn.Module, names: list[str], seen: list[tuple[str, Any, int]]) -> Iterator[None]:
    """Note what leaves the modules with these names while they run."""

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _arguments: object, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ValueError(f"{name} gives {type(output).__name__}, no tensor: ask for the modules inside of it")
            kept = output.clone() if output.is_inference() else output  # those do not count their changes
            seen.append((name, kept, _version(kept)))

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _version(output: Tensor) -> int:
    """How often a tensor was changed in place, as far as it knows."""
    return 0 if output.is_inference() else output._version
