"""From the names in a published file to those of the model, in small steps.

Each step is a pure function: a dict of tensors comes in, another one goes out, and where the step has nothing to do it
is an equal one. `own` are the names of the network that is to be filled; a step leaves alone what the network itself
calls so. A normalisation in front of the network is kept under the names `normalize.mean` and `normalize.std`.
"""

import inspect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from timm.models import is_model, model_entrypoint
from torch import Tensor, nn

Weights = dict[str, Tensor]

NESTS = ("state_dict", "model", "model_state_dict", "last")
EMA_NESTS = ("state_dict_ema", "model_ema", "ema")
NORMALIZATION = ("normalize.mean", "normalize.std")
_IN_FRONT = (("normalize.mean", "normalize.std", "model."), ("0.mean", "0.std", "1."), ("mu", "sigma", ""))
_BESIDE = (("mu", "sigma", ""), ("mean", "std", ""))
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Weights after some steps, and what these did.

    Attributes:
        weights: by their new names.
        steps: the steps that changed something, in order.
        renamed: new names by the old ones.
        dropped: old names that are gone.
        converted: new names of tensors that were split, reshaped or resized.
        objection: what the filter of the architecture has against these weights, "" if nothing.
    """

    weights: Weights
    steps: tuple[str, ...]
    renamed: Mapping[str, str]
    dropped: tuple[str, ...]
    converted: tuple[str, ...]
    objection: str = ""


def pick_state_dict(content: Any, *, ema: bool = False, name: str = "the checkpoint") -> tuple[str, Weights]:
    """Find the weights in what a file holds: where they lay ("" for the top) and the tensors.

    They lie under `state_dict`, `model`, `model_state_dict` or `last`, the first that holds tensors, or at the top;
    with `ema` under `state_dict_ema`, `model_ema` or `ema`, which are also taken where there is nothing else. Of a
    whole pickled module the `state_dict()` is taken.

    Raises:
        ValueError: if there are none; the message starts with `name`.
    """
    held = content if isinstance(content, Mapping) else {}
    nests = {nest: tensors for nest in (*NESTS, *EMA_NESTS) if (tensors := _tensors(held.get(nest)))}
    averaged = [nest for nest in nests if nest in EMA_NESTS]
    order = averaged if ema else [*(nest for nest in nests if nest in NESTS), *averaged]
    if order:
        return order[0], nests[order[0]]
    if ema:
        raise ValueError(f"{name} has no averaged weights ({', '.join(EMA_NESTS)}): load it with ema=False")
    if weights := _tensors(content):
        return "", weights
    what = f"a mapping with the keys {', '.join(map(str, list(held)[:8]))}" if held else f"a {type(content).__name__}"
    raise ValueError(
        f"{name} holds {what} and no state_dict: save model.state_dict(), at the top or under one of "
        f"{', '.join(NESTS[:3])}"
    )


def strip_orig_mod(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Take off `_orig_mod.` of torch.compile wherever it stands."""
    if any("_orig_mod." in name for name in own):
        return weights
    return {name.replace("_orig_mod.", ""): value for name, value in weights.items()}


def strip_module(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Take off the prefix `module.` of data parallel training, as often as every name has it."""
    while stripped := _stripped(weights, own, "module."):
        weights = stripped
    return weights


def split_normalizer(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Recognise a normalisation in front: `normalize.*, model.*`, `0.*, 1.*`, or `mu, sigma` beside the names."""
    return _normalization_aside(weights, own, _IN_FRONT)


def strip_model_prefix(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Take off `model.` where every name has it, a normalisation aside."""
    return _stripped(weights, own, "model.") or weights


def drop_normalizer_buffers(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Set the buffers `mu, sigma` or `mean, std` beside the names aside, to be compared with what the model has."""
    return _normalization_aside(weights, own, _BESIDE)


def drop_bn_adv(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Drop the auxiliary batch norms `*.bn_adv.*` of adversarial training, unless the network has them."""
    if any(".bn_adv." in name for name in own):
        return weights
    return {name: value for name, value in weights.items() if ".bn_adv." not in name}


def unwrap_bn(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Turn `bn1.bn.weight`, as a wrapper around batch norms leaves it, into the `bn1.weight` of the network."""

    def unwrapped(name: str) -> str:
        parent, _, leaf = name.rpartition(".")
        inner = f"{parent.removesuffix('.bn')}.{leaf}"
        wrapped = parent.endswith(".bn") and leaf in _BATCH_NORM
        return inner if wrapped and name not in own and inner in own and inner not in weights else name

    return {unwrapped(name): value for name, value in weights.items()}


def drop_sub_block1(weights: Weights, own: Set[str] = frozenset()) -> Weights:
    """Drop `sub_block1.*`, an unused copy of the first block in some Wide ResNets."""
    if _any_starts(own, "sub_block1."):
        return weights
    return {name: value for name, value in weights.items() if not name.startswith("sub_block1.")}


def architecture_filter(weights: Weights, network: nn.Module) -> Weights:
    """Apply what the module of the architecture knows about its published files, if more names fit afterwards.

    That is its function `checkpoint_filter` (ours) or `checkpoint_filter_fn` (timm's): renumbered layers of old Swin
    files, fused query, key and value of FAN and XCiT, linear patch embeddings, tables for another image size.

    Raises:
        ValueError: if the filter says why it cannot convert the weights.
    """
    known = _filter_of(network)
    if known is None:
        return weights
    aside = {name: value for name, value in weights.items() if name in NORMALIZATION}
    target = network.state_dict()
    inner = {name: value for name, value in weights.items() if name not in aside or name in target}
    try:
        filtered = known(dict(inner), network)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError):
        return weights  # names that the filter was not made for; what does not fit is told by the caller
    return {**aside, **filtered} if _fit(filtered, target) > _fit(inner, target) else weights


NAME_STEPS: dict[str, Callable[[Weights, Set[str]], Weights]] = {
    step.__name__: step
    for step in (
        strip_orig_mod,  # wherever it stands: before the prefixes that it may hide
        strip_module,
        split_normalizer,
        strip_model_prefix,
        drop_normalizer_buffers,
        drop_bn_adv,
        unwrap_bn,
        drop_sub_block1,
    )
}
# What the registry calls the filter of one architecture or another, and its general name.
FILTER_STEPS = ("fan_qkv_split", "timm_swin_filter", "clip_image_classifier", "architecture_filter")
# The weights are picked before any step: the registry says so in its lists.
PICK_STEPS = ("pick_state_dict", "pick_model")
ALL_STEPS = (
    "strip_orig_mod",
    "strip_module",
    "split_normalizer",
    "strip_model_prefix",
    "strip_module",  # data parallel training inside of a normalisation
    "drop_normalizer_buffers",
    "drop_bn_adv",
    "unwrap_bn",
    "drop_sub_block1",
    "architecture_filter",
)


def map_names(weights: Weights, network: nn.Module, steps: Iterable[str] = ALL_STEPS) -> Mapped:
    """Apply `steps` in order, to end with the names of `network`.

    Raises:
        ValueError: for a step that does not exist.
    """
    own = set(network.state_dict())
    now, done, objection = weights, [], ""
    for step in check_steps(steps):
        if step in PICK_STEPS:
            continue
        try:
            after = NAME_STEPS[step](now, own) if step in NAME_STEPS else architecture_filter(now, network)
        except ValueError as error:
            objection, after = str(error), now
        if after.keys() != now.keys() or any(after[name] is not now[name] for name in now):
            done.append(step)
        now = after
    return replace(traced(weights, now), steps=tuple(done), objection=objection)


def check_steps(steps: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the steps.

    Raises:
        ValueError: for one that does not exist.
    """
    named = tuple(steps)
    known = (*PICK_STEPS, *NAME_STEPS, *FILTER_STEPS)
    if unknown := [step for step in named if step not in known]:
        raise ValueError(f"no step of the key mapping is called {unknown[0]!r}: take {', '.join(known)}")
    return named


def traced(before: Weights, after: Weights) -> Mapped:
    """Say what happened between `before` and `after`, by following the tensors themselves."""
    origins: dict[int, list[str]] = defaultdict(list)  # tied weights are one tensor under several names
    for name, value in before.items():
        origins[id(value)].append(name)
    moved = {name: origins[id(value)].pop(0) for name, value in after.items() if origins[id(value)]}
    kept = set(moved.values())
    return Mapped(
        weights=after,
        steps=(),
        renamed={old: new for new, old in moved.items() if old != new},
        dropped=tuple(name for name in before if name not in kept and name not in after),
        converted=tuple(name for name in after if name not in moved),
    )


def _tensors(value: Any) -> Weights:
    """The tensors of a mapping or module by name; empty if it is neither, or holds none."""
    held = value.state_dict() if isinstance(value, nn.Module) else value
    if not isinstance(held, Mapping):
        return {}
    return {str(name): each for name, each in held.items() if isinstance(each, Tensor)}


def _normalization_aside(weights: Weights, own: Set[str], forms: Iterable[tuple[str, str, str]]) -> Weights:
    """The weights with the first of `forms` (mean, std, prefix of the rest) under our names for it."""
    if not own.isdisjoint(NORMALIZATION):
        return weights
    for mean, std, prefix in forms:
        names = dict(zip((mean, std), NORMALIZATION, strict=True))
        found = names.keys() & weights.keys()
        # A part of it is told from a parameter that happens to be called so by our own names only.
        enough = len(found) == 2 or (found and mean == NORMALIZATION[0])
        rest = [name for name in weights if name not in names]
        free = own.isdisjoint(found) and NORMALIZATION[0] not in rest and NORMALIZATION[1] not in rest
        if enough and free and all(name.startswith(prefix) for name in rest):
            return {names.get(name, name.removeprefix(prefix)): value for name, value in weights.items()}
    return weights


def _stripped(weights: Weights, own: Set[str], prefix: str) -> Weights | None:
    """The weights without a prefix that every name has, a normalisation aside; None if it is not like that."""
    rest = [name for name in weights if name not in NORMALIZATION]
    if not rest or not all(name.startswith(prefix) for name in rest) or _any_starts(own, prefix):
        return None
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def _any_starts(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _filter_of(network: nn.Module) -> Callable[..., Weights] | None:
    """The filter of the module that registered the network with timm, else of the one that defines its class."""
    architecture = (getattr(network, "pretrained_cfg", None) or {}).get("architecture", "")
    makers = [model_entrypoint(architecture)] if is_model(architecture) else []
    for maker in (*makers, type(network)):
        module = inspect.getmodule(maker)
        for name in ("checkpoint_filter", "checkpoint_filter_fn"):
            if found := getattr(module, name, None):
                return found  # type: ignore[no-any-return]
    return None


def _fit(weights: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many names and shapes fit, and how few names are unknown; larger is better."""
    kinds = Counter(
        "unknown" if name not in target else "fits" if target[name].shape == value.shape else "differs"
        for name, value in weights.items()
    )
    return kinds["fits"], -kinds["unknown"]
