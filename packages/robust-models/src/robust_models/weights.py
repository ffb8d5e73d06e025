"""Read and write weight files without executing what is in them."""

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from robust_models.cache import write_whole
from robust_models.download import download
from robust_models.key_mapping import (
    ALL_STEPS,
    NORMALIZATION,
    Mapped,
    check_steps,
    map_names,
    pick_state_dict,
    traced,
)
from robust_models.normalize import NormalizedModel, find_normalize
from robust_models.registry import Entry, get_entry
from robust_models.weight_files import check_file, read_file
from robust_models.weight_fit import WeightFit, classifier_names


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What `load_weights` did; names are those of the `state_dict` of the model, unless they are said to be the file's.

    Attributes:
        path: the file.
        sha256: its checksum.
        source: the key under which the weights lay in the file, "" if they lay at the top.
        steps: the steps of `robust_models.key_mapping` that changed something.
        renamed: the model's names by those of the file, where they differ.
        dropped: names in the file that the mapping left out.
        converted: names of tensors that the mapping split, reshaped or resized.
        loaded: names that were set.
        missing: names that the file does not have; they kept their values.
        unexpected: names in the file that the model does not have.
        mismatched: names whose shape differs; they kept their values.
    """

    path: Path
    sha256: str
    source: str
    steps: tuple[str, ...]
    renamed: Mapping[str, str]
    dropped: tuple[str, ...]
    converted: tuple[str, ...]
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load_weights(
    model: nn.Module,
    path_or_name: str | os.PathLike[str] | Entry,
    *,
    mapping: str | Sequence[str] = "auto",
    sha256: str | None = None,
    strict: bool = True,
    ema: bool = False,
    new_head: bool = False,
    allow_pickle: bool = False,
    accept_license: bool = False,
    allow_http: bool = False,
) -> LoadReport:
    """Set the weights of `model` from a safetensors file, a torch checkpoint, or an entry of the zoo.

    Nothing in the file is executed. How names are found, in this order:

    1. The weights lie at the top of the file, or under `state_dict`, `model`, `model_state_dict` or `last` (the first
       that exists); with `ema` under `state_dict_ema`, `model_ema` or `ema`. A file that has only averaged weights
       gives those.
    2. The prefix `module.` (data parallel) goes, and `_orig_mod.` (torch.compile) wherever it stands.
    3. A normalisation in front is recognised as `normalize.mean, normalize.std, model.*`, as `0.mean, 0.std, 1.*`, or
       as `mu, sigma` or `mean, std` beside the names, unless the model itself has these names. Its values, of any shape
       with one value per channel, go into the `normalize` of a `NormalizedModel`, with a warning where they differ from
       those that it had. A file without one leaves them alone.
    4. The prefix `model.` goes, auxiliary batch norms (`.bn_adv.`) and the unused `sub_block1.` of some Wide ResNets
       are dropped, `bn1.bn.weight` becomes `bn1.weight`, each unless the model has such names itself.
    5. If that does not fit, the architecture's own filter is tried: timm's `checkpoint_filter_fn` or ours, which know
       older layouts and resize tables for another image size.

    So a model always loads the file that it saved. Everything is checked before the first tensor is copied: the model
    never ends up half loaded.

    Args:
        model: the model to fill, or DataParallel or torch.compile around it; its device and dtype stay.
        path_or_name: `.safetensors`, a file of `torch.save` that holds tensors and plain values, or the name of an
            entry of `list_models()` or the entry itself, which is downloaded.
        mapping: names of steps of `robust_models.key_mapping`, applied in the order given; "auto" takes those of the
            entry and then, if they do not fit or there is none, all.
        sha256: the expected checksum, 64 hexadecimal digits; checked before the file is read.
        strict: refuse missing, unexpected and mismatched entries. False leaves those out and reports them; at least one
            entry must fit.
        ema: take the averaged weights of a checkpoint that has both.
        new_head: let the model keep its own classifier where that of the file does not fit. Entries of the zoo for
            another number of classes than the model's do so in any case.
        allow_pickle: read pickles that need code, **which can run anything**.
        accept_license: accept the licence of an entry that restricts its use.
        allow_http: download an entry over http, where anyone on the way may change it.

    Raises:
        FileNotFoundError: if there is no such file or entry.
        ValueError: if the file is not what it should be (a web page, truncated, another checksum, a pickle that needs
            code), or does not fit the model.
    """
    file, entry = _located(path_or_name, accept_license, allow_http)
    checksum = check_file(file, sha256)
    source, weights = pick_state_dict(read_file(file, allow_pickle=allow_pickle), ema=ema, name=str(file))
    model, weights = _unwrapped(model, weights)
    if any(each.is_meta for each in (*model.parameters(), *model.buffers())):
        raise ValueError("the model lies on the meta device, where there is nothing to fill: model.to_empty(...) first")
    network = model.unwrap() if isinstance(model, NormalizedModel) else model
    other_classes = entry is not None and entry.num_classes != getattr(network, "num_classes", None)
    head = classifier_names(network) if new_head or other_classes else ()
    mapped, fit = matched(model, weights, _lists_of_steps(mapping, entry), head=head)
    aside = set(NORMALIZATION) if isinstance(model, NormalizedModel) else set()  # alone these are no weights
    if (strict and not fit.complete) or not fit.fitting.keys() - aside:
        raise ValueError(fit.message(file, model))
    _settle_normalization(file, model, mapped, fit)
    model.load_state_dict(fit.fitting, strict=False)
    return LoadReport(
        path=file,
        sha256=checksum,
        source=source,
        steps=mapped.steps,
        renamed=mapped.renamed,
        dropped=mapped.dropped,
        converted=mapped.converted,
        loaded=tuple(fit.fitting),
        missing=fit.missing,
        unexpected=fit.unexpected,
        mismatched=fit.mismatched,
    )


def save_weights(model: nn.Module, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None) -> str:
    """Write the `state_dict` of `model` to a safetensors file that `load_weights` reads, and return its sha256.

    The file appears under its name only when it is complete, in the place of an older one. Without `metadata` the same
    weights give the same bytes.

    Args:
        model: whose weights.
        path: ends in `.safetensors`.
        metadata: further lines for the header of the file.

    Raises:
        ValueError: if `path` does not end in `.safetensors`.
        FileNotFoundError: if its folder does not exist.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got {file.name}: change the ending")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"no folder {file.parent} to write {file.name} into: make it first")
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    content = safetensors.torch.save(tensors, metadata={"format": "pt", **(metadata or {})})
    write_whole(file, content)
    return hashlib.sha256(content).hexdigest()


def matched(
    model: nn.Module, weights: dict[str, Tensor], lists: Iterable[Sequence[str]], *, head: tuple[str, ...] = ()
) -> tuple[Mapped, WeightFit]:
    """Map `weights` to the names of `model` by the first of some lists of steps after which all fits, or the best.

    Args:
        model: a network, or a `NormalizedModel` around one; only names and shapes count.
        weights: by their names in the file.
        lists: each one the names of steps, see `key_mapping.map_names`.
        head: beginnings of the names of the classifier where it may be new.
    """
    tries = []
    for steps in lists:
        tries.append(_matched_by(model, weights, steps, head))
        if tries[-1][1].complete:
            break
    return max(tries, key=lambda each: (each[1].complete, len(each[1].fitting)))


def _matched_by(
    model: nn.Module, weights: dict[str, Tensor], steps: Sequence[str], head: tuple[str, ...]
) -> tuple[Mapped, WeightFit]:
    network, prefix = (model.unwrap(), "model.") if isinstance(model, NormalizedModel) else (model, "")
    inside = network is not model
    target, own = model.state_dict(), network.state_dict()
    mapped = map_names(weights, network, steps)
    aside = {name for name in NORMALIZATION if name in mapped.weights and name not in own}
    named = {
        name if name in aside else f"{prefix}{name}": value
        for name, value in mapped.weights.items()
        if inside or name not in aside
    }
    shaped = {name: value.reshape(1, -1, 1, 1) if inside and name in aside else value for name, value in named.items()}
    fit = WeightFit(
        target=target,
        found=shaped,
        optional=frozenset(NORMALIZATION) if inside and not aside else frozenset(),
        head=tuple(f"{prefix}{name}" for name in head),
        objection=mapped.objection,
    )
    return replace(traced(weights, named), weights=mapped.weights, steps=mapped.steps), fit


def _located(
    path_or_name: str | os.PathLike[str] | Entry, accept_license: bool, allow_http: bool
) -> tuple[Path, Entry | None]:
    """The file, and the entry of the zoo if it is the file of one."""
    if isinstance(path_or_name, Entry):
        return download(path_or_name, accept_license=accept_license, allow_http=allow_http), path_or_name
    file = Path(path_or_name)
    try:
        entry = get_entry(str(path_or_name))
    except ValueError as error:
        if file.is_file():
            return file, None
        raise FileNotFoundError(
            f"no weights at {file}: give the path of a .safetensors or .pt file, or the name of an entry ({error})"
        ) from error
    if file.is_file():
        raise ValueError(
            f"{file} is an entry of the zoo, and a file lies here under that name: write ./{file.as_posix()} if the "
            "file is meant"
        )
    return download(entry, accept_license=accept_license, allow_http=allow_http), entry


def _lists_of_steps(mapping: str | Sequence[str], entry: Entry | None) -> list[Sequence[str]]:
    """The lists of steps to try."""
    if mapping != "auto":
        return [check_steps([mapping] if isinstance(mapping, str) else mapping)]
    published = entry.checkpoint.key_mapping if entry and entry.checkpoint else ()
    return [*([published] if published else []), ALL_STEPS]


def _settle_normalization(file: Path, model: nn.Module, mapped: Mapped, fit: WeightFit) -> None:
    """Compare mean and std of the file with those of the model, warn if they differ, and set those that are built in.

    Raises:
        ValueError: if the model has none, or another number of channels.
    """
    own = (model.unwrap() if isinstance(model, NormalizedModel) else model).state_dict()
    held = {name: mapped.weights[name] for name in NORMALIZATION if name in mapped.weights and name not in own}
    if isinstance(model, NormalizedModel):
        held = {name: value for name, value in held.items() if name in fit.fitting}
    layer = find_normalize(model)
    if layer is None:
        neutral = {NORMALIZATION[0]: 0, NORMALIZATION[1]: 1}
        if all(bool((value == neutral[name]).all()) for name, value in held.items()):
            return
        values = ", ".join(f"{name} {value.flatten().tolist()}" for name, value in held.items())
        raise ValueError(
            f"{file} holds a normalisation ({values}) and the model has none: build it with "
            "robust_models.create_model(...), which puts the normalisation inside"
        )
    buffers = {name: layer.get_buffer(name.rpartition(".")[2]) for name in held}
    for name, buffer in buffers.items():
        if held[name].numel() != buffer.numel():
            raise ValueError(
                f"{file} holds {name} for {held[name].numel()} channels, and the model takes images of {buffer.numel()}"
            )
    for name, buffer in buffers.items():
        new, old = held[name].flatten().tolist(), buffer.flatten().tolist()
        if any(abs(one - other) > 1e-6 for one, other in zip(new, old, strict=True)):
            warnings.warn(f"{file} sets {name} to {new}; the model had {old}", stacklevel=3)
            with torch.no_grad():
                buffer.copy_(held[name].reshape(buffer.shape))


def _unwrapped(model: nn.Module, weights: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network inside DataParallel and torch.compile, and the weights without the prefixes that these give."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner, prefix = model.module, "module."
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            inner, prefix = model._orig_mod, "_orig_mod."
        else:
            return model, weights
        if weights.keys() == model.state_dict().keys():
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
        model = inner
