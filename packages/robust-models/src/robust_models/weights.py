"""Read and write weight files without executing what is in them."""

import argparse
import hashlib
import os
import pickle
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from robust_models.normalize import NormalizedModel

_NESTS = ("state_dict", "model", "model_state_dict")
_EMA_NESTS = ("state_dict_ema", "model_ema", "ema")
_NORMALIZERS = (("normalize.mean", "normalize.std", "model."), ("0.mean", "0.std", "1."), ("mu", "sigma", ""))


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What `load_weights` did; all names are those of the `state_dict` of the model, or of the network that it wraps.

    Attributes:
        path: the file.
        sha256: its checksum.
        source: the key under which the weights lay in the file, "" if they lay at the top.
        loaded: names that were set.
        missing: names that the file does not have; they kept their values.
        unexpected: names in the file that the model does not have.
        mismatched: names whose shape differs; they kept their values.
    """

    path: Path
    sha256: str
    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load_weights(
    model: nn.Module, path: str | os.PathLike[str], *, sha256: str | None = None, strict: bool = True, ema: bool = False
) -> LoadReport:
    """Set the weights of `model` from a safetensors file or a torch checkpoint. Nothing in the file is ever executed.

    How names are found, in this order:

    1. The weights lie at the top of the file, or under `state_dict`, `model` or `model_state_dict` (the first that
       exists); with `ema` under `state_dict_ema`, `model_ema` or `ema`. A file that has only averaged weights gives
       those.
    2. The prefix `module.` (data parallel) goes, and `_orig_mod.` (torch.compile) wherever it stands.
    3. A normalisation in front is recognised as `normalize.mean, normalize.std, model.*`, as `0.mean, 0.std, 1.*`, or
       as `mu, sigma` beside the names, unless the model itself has these names. Its values, of any shape with one value
       per channel, go into the `normalize` of a `NormalizedModel`, with a warning where they differ from those that it
       had. A file without one leaves them alone.
    4. What remains must be the names of the model (inside the `NormalizedModel`), with or without the prefix `model.`.

    So a model always loads the file that it saved. Everything is checked before the first tensor is copied: the model
    never ends up half loaded.

    Args:
        model: the model to fill, or DataParallel or torch.compile around it; its device and dtype stay.
        path: `.safetensors`, or a file of `torch.save` that holds tensors and plain values.
        sha256: the expected checksum, 64 hexadecimal digits; checked before the file is read.
        strict: refuse missing, unexpected and mismatched entries. False leaves those out and reports them; at least one
            entry must fit.
        ema: take the averaged weights of a checkpoint that has both.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not what it should be (a web page, truncated, another checksum, a pickle that needs
            code), or does not fit the model.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}: give the path of a .safetensors or .pt file")
    checksum = _check_file(file, sha256)
    content = _read(file)
    source, weights = _state_dict(content, file, ema)
    model, weights = _unwrapped(model, weights)
    inside = isinstance(model, NormalizedModel)
    target = model.state_dict()
    weights, normalization = _split_normalization(_without_wrappers(weights, target), set() if inside else set(target))
    found = _named_as(target, weights, inside)
    if inside:
        found |= {name: value.reshape(1, -1, 1, 1) for name, value in normalization.items()}
    elif any(
        bool((value != {"normalize.mean": 0, "normalize.std": 1}[name]).any()) for name, value in normalization.items()
    ):
        held = ", ".join(f"{name} {value.flatten().tolist()}" for name, value in normalization.items())
        raise ValueError(
            f"{file} holds a normalisation ({held}) and the model has none: build it with "
            "robust_models.create_model(...), which puts the normalisation inside"
        )
    optional = {"normalize.mean", "normalize.std"} if inside and not normalization else set()
    missing = tuple(name for name in target if name not in found and name not in optional)
    unexpected = tuple(name for name in found if name not in target)
    mismatched = tuple(name for name in found if name in target and not _fits(found[name], target[name]))
    fitting = {name: found[name] for name in found if name in target and name not in mismatched}
    if (strict and (missing or unexpected or mismatched)) or not fitting:
        raise ValueError(_misfit(file, model, target, found, missing, unexpected, mismatched))
    if inside:
        _warn_of_other_normalization(file, target, fitting)
    model.load_state_dict(fitting, strict=False)
    return LoadReport(
        path=file,
        sha256=checksum,
        source=source,
        loaded=tuple(fitting),
        missing=missing,
        unexpected=unexpected,
        mismatched=mismatched,
    )


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> str:
    """Write the `state_dict` of `model` to a safetensors file that `load_weights` reads, and return its sha256.

    The file appears under its name only when it is complete, in the place of an older one. The same weights give the
    same bytes.

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
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return hashlib.sha256(content).hexdigest()


def _check_file(file: Path, expected: str | None) -> str:
    """The checksum of the file, after the check of its value and of what kind of file it is."""
    if expected is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {expected!r}")
    with file.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        start = stream.read(512)
    if not start:
        raise ValueError(f"{file} is empty: download it again")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ValueError(
            f"{file} is a web page and not a weight file: the link led to a login, confirmation or error page; "
            "download the file itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{file} is a Git LFS pointer and not the weights themselves: fetch them with `git lfs pull`")
    if expected is not None and checksum != expected.lower():
        raise ValueError(
            f"{file} has sha256 {checksum} and not {expected.lower()}: it is damaged or another file; download it again"
        )
    return checksum


def _read(file: Path) -> Any:
    """What the file holds: safetensors by its header, else through torch's restricted unpickler."""
    with file.open("rb") as stream:
        start = stream.read(9)
    damaged = f"{file} is truncated or damaged: download or copy it again"
    if start[8:] == b"{" or file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{damaged} ({error})") from error
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise ValueError(
            f"{file} is neither a safetensors file nor one of torch.save: download it again, or convert it to "
            "safetensors"
        )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore", UserWarning)  # of torch, about old pickles
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"the Python object {blocked.group(1)}" if blocked else "more than tensors and plain values"
        raise ValueError(
            f"{file} needs {what}, and reading that could run any code, so it is refused. If you trust its source, "
            "convert it where you do: "
            "torch.load(..., weights_only=False), then safetensors.torch.save_file of its state_dict"
        ) from error
    except Exception as error:  # a damaged file makes torch raise nearly anything
        if "TorchScript" in str(error):
            raise ValueError(
                f"{file} is a TorchScript archive: load it with torch.jit.load and save its state_dict"
            ) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ValueError(f"{damaged} ({reason})") from error


def _state_dict(content: Any, file: Path, ema: bool) -> tuple[str, dict[str, Tensor]]:
    """Where the weights lie in the file, and the weights."""
    nests = {
        name: content[name]
        for name in (*_NESTS, *_EMA_NESTS)
        if isinstance(content, Mapping) and _holds_tensors(content.get(name))
    }
    averaged = [name for name in nests if name in _EMA_NESTS]
    order = averaged if ema else [*(name for name in nests if name in _NESTS), *averaged]
    if order:
        return order[0], {str(name): value for name, value in nests[order[0]].items() if isinstance(value, Tensor)}
    if ema:
        raise ValueError(f"{file} has no averaged weights ({', '.join(_EMA_NESTS)}): load it with ema=False")
    if _holds_tensors(content):
        return "", {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    held = (
        f"a mapping with the keys {', '.join(map(str, list(content)[:8]))}"
        if isinstance(content, Mapping)
        else f"a {type(content).__name__}"
    )
    raise ValueError(
        f"{file} holds {held} and no state_dict: save model.state_dict(), at the top or under one of "
        f"{', '.join(_NESTS)}"
    )


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor) for item in value.values())


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


def _without_wrappers(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not any("_orig_mod." in name for name in own):
        weights = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
    while all(name.startswith("module.") for name in weights) and not any(name.startswith("module.") for name in own):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _split_normalization(weights: dict[str, Tensor], own: set[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights without a normalisation in front of them, and its values by our names; names in `own` stay."""
    for mean, std, prefix in _NORMALIZERS:
        names = {mean: "normalize.mean", std: "normalize.std"}
        found = names.keys() & weights.keys()
        rest = [name for name in weights if name not in names]
        # A part of it is told from a parameter that happens to be called so by our own names only.
        enough = len(found) == 2 or (found and mean == "normalize.mean")
        if enough and not found & own and all(name.startswith(prefix) for name in rest):
            normalization = {names[name]: weights[name] for name in names if name in found}
            return {name.removeprefix(prefix): weights[name] for name in rest}, normalization
    return weights, {}


def _named_as(target: Mapping[str, Tensor], weights: dict[str, Tensor], inside: bool) -> dict[str, Tensor]:
    """The weights under the names that the model uses: `model.` added or taken away."""
    bare = {name.removeprefix("model.") for name in target} if inside else set(target)
    prefixed = (
        bool(weights)
        and all(name.startswith("model.") for name in weights)
        and not any(name.startswith("model.") for name in bare)
    )
    weights = {name.removeprefix("model."): value for name, value in weights.items()} if prefixed else weights
    return {f"model.{name}": value for name, value in weights.items()} if inside else weights


def _fits(value: Tensor, target: Tensor) -> bool:
    return value.shape == target.shape and value.is_floating_point() == target.is_floating_point()


def _warn_of_other_normalization(file: Path, target: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> None:
    for name in ("normalize.mean", "normalize.std"):
        if name in fitting:
            new, old = fitting[name].flatten().tolist(), target[name].flatten().tolist()
            if any(abs(one - other) > 1e-6 for one, other in zip(new, old, strict=True)):
                warnings.warn(f"{file} sets {name} to {new}; the model had {old}", stacklevel=3)


def _misfit(
    file: Path,
    model: nn.Module,
    target: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    missing: tuple[str, ...],
    unexpected: tuple[str, ...],
    mismatched: tuple[str, ...],
) -> str:
    """The message for a file that does not fit."""
    lines = [
        f"{file} does not fit this {type(model.unwrap() if isinstance(model, NormalizedModel) else model).__name__}; "
        "nothing was loaded."
    ]
    if mismatched:
        shapes = [
            f"{name} is {tuple(found[name].shape)} in the file and {tuple(target[name].shape)} in the model"
            for name in mismatched[:3]
        ]
        lines.append(
            f"{len(mismatched)} entries differ in shape or kind: "
            f"{'; '.join(shapes)}{'; ...' if len(mismatched) > 3 else ''}."
        )
    for names, what in ((missing, "missing from the file"), (unexpected, "unknown to the model")):
        if names:
            lines.append(f"{len(names)} entries are {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}.")
    if (
        mismatched
        and all(target[name].shape[:1] != found[name].shape[:1] for name in mismatched)
        and not missing
        and not unexpected
    ):
        classes = found[mismatched[-1]].shape[:1]
        lines.append(
            f"If only the classifier differs, build the model with num_classes={classes[0] if classes else '...'}, "
            "or pass strict=False to keep the new one."
        )
    else:
        lines.append(
            "Build the model that the file was made for (name, in_chans, img_size, num_classes), or pass "
            "strict=False to load what fits."
        )
    return " ".join(lines)
