"""Published robust models, ready to be attacked: built, filled with their weights, taking images in [0, 1]."""

import logging
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
from timm.data.transforms_factory import create_transform
from timm.models import get_pretrained_cfg
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from robust_models.cache import Origin
from robust_models.clip import timm_clip_classifier
from robust_models.create import create_model
from robust_models.licences import check_licence
from robust_models.normalize import NormalizedModel, find_normalize
from robust_models.registry import Entry, Preprocess, get_entry
from robust_models.weights import LoadReport, load_weights, save_weights

_logger = logging.getLogger(__name__)
_BLOCKS = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}
_CROP_ONLY = re.compile(r"Crop\d+")  # RobustBench's name for a crop without resizing


def build_model(entry: Entry) -> nn.Module:
    """Build the architecture of `entry` with its mean/std step inside, and with fresh weights.

    The preprocessing of the printed evaluation takes the place of timm's in the `pretrained_cfg` of the network, where
    timm's tools and robust-bench look for it.

    Raises:
        ValueError: if there is no builder for it.
    """
    network = _network(entry)
    config: Any = network.pretrained_cfg
    known = _in_timms_words(entry.preprocess) if entry.preprocess else {}
    built_in = find_normalize(network)
    if built_in is None:
        config = network.pretrained_cfg = {**config, **known}  # type: ignore[assignment]
        return NormalizedModel(network, mean=config["mean"], std=config["std"])
    for name in {"mean", "std"} & known.keys():  # its own layer does that: a loader must not
        buffer = built_in.get_buffer(name)
        buffer.copy_(torch.tensor(known.pop(name)).view(buffer.shape))
    network.pretrained_cfg = {**config, **known}  # type: ignore[assignment]
    return network


def pretrained(
    name: str,
    *,
    normalized: bool = True,
    ema: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    accept_license: bool = False,
    allow_pickle: bool = False,
    allow_http: bool = False,
) -> nn.Module:
    """Return a published model in eval mode that takes images in [0, 1]; its file is downloaded once.

    The attribute `entry` of what comes back has the printed numbers with their source, the preprocessing of the images,
    and the licence, which is also logged.

    Args:
        name: of an entry, see `list_models`.
        normalized: False gives the bare network, which takes normalised images (unless it normalises by itself).
        ema: take the averaged weights of a file that has both.
        device: where it goes.
        dtype: of its floating numbers.
        accept_license: accept a licence that restricts the use; the environment variable
            `ROBUST_MODELS_ACCEPT_LICENSE=1` does so too.
        allow_pickle: read pickles that need code, **which can run anything**.
        allow_http: download over http, where anyone on the way may change the file.

    Raises:
        ValueError: if there is no such entry, no builder for its architecture, or its file does not fit.
        PermissionError: if the licence has to be accepted.
        OSError: if the file cannot be had.
    """
    entry = get_entry(name)
    model, _ = _loaded(entry, ema, accept_license, allow_pickle, allow_http)
    if not normalized and isinstance(model, NormalizedModel):
        model = model.unwrap()
    model.entry = entry  # type: ignore[assignment]
    return model.to(device=device, dtype=dtype)


def export(
    name: str,
    out: str | os.PathLike[str],
    *,
    ema: bool = False,
    accept_license: bool = False,
    allow_pickle: bool = False,
    allow_http: bool = False,
) -> str:
    """Write a published model to a safetensors file under our names, and return its sha256.

    The header of the file says where the weights are from: `entry`, `source_url`, `source_sha256`, `date` (ISO 8601,
    UTC), `mapping` (the steps that changed names) and `license`.

    Args:
        name: of an entry.
        out: ends in `.safetensors`.
        ema: take the averaged weights of a file that has both.
        accept_license: see `pretrained`.
        allow_pickle: see `pretrained`.
        allow_http: see `pretrained`.

    Raises:
        ValueError: see `pretrained` and `save_weights`.
        PermissionError: see `pretrained`.
        OSError: see `pretrained` and `save_weights`.
    """
    entry = get_entry(name)
    model, report = _loaded(entry, ema, accept_license, allow_pickle, allow_http)
    origin = Origin.read(report.path)
    metadata = {
        "entry": entry.name,
        "source_url": origin.url if origin and origin.sha256 == report.sha256 else str(report.path),
        "source_sha256": report.sha256,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mapping": ", ".join(report.steps),
        "license": entry.license or "unknown",
    }
    return save_weights(model, out, metadata=metadata)


def build_transform(entry: Entry) -> Callable[[Any], Tensor]:
    """Return the transform of the printed evaluation: a PIL image in, a tensor (3, H, W) in [0, 1] out.

    Mean and std are no part of it, because the model has them inside. Where the evaluation did not resize images, this
    cuts out their centre.

    Raises:
        ValueError: if the preprocessing of the entry is not known.
    """
    preprocess = entry.preprocess
    if preprocess is None:
        raise ValueError(f"how the images of {entry.name} were made is not known: choose a transform yourself")
    resizes = preprocess.interpolation != "none" and not _CROP_ONLY.fullmatch(
        preprocess.robustbench_preprocessing or ""
    )
    channels = len(preprocess.mean)
    transform: Any = create_transform(
        (channels, preprocess.input_size, preprocess.input_size),
        crop_pct=preprocess.crop_pct,
        interpolation=preprocess.interpolation if resizes else "bilinear",
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    if not resizes:
        transform.transforms = transform.transforms[1:]  # all but Resize
    return transform  # type: ignore[no-any-return]


def _in_timms_words(preprocess: Preprocess) -> dict[str, Any]:
    """The preprocessing in timm's words."""
    side = preprocess.input_size
    found = {
        "mean": preprocess.mean,
        "std": preprocess.std,
        "input_size": (len(preprocess.mean), side, side),
        "crop_pct": preprocess.crop_pct,
    }
    return found if preprocess.interpolation == "none" else {**found, "interpolation": preprocess.interpolation}


def _loaded(
    entry: Entry, ema: bool, accept_license: bool, allow_pickle: bool, allow_http: bool
) -> tuple[nn.Module, LoadReport]:
    """The model of `entry` with its weights, on the CPU, in eval mode."""
    check_licence(entry, accept_license)  # before a large model is built
    model = build_model(entry).eval()
    report = load_weights(
        model,
        entry,
        ema=ema,
        accept_license=accept_license,
        allow_pickle=allow_pickle,
        allow_http=allow_http,
    )
    if entry.preprocess and not entry.preprocess.confirmed:
        held = not {"normalize.mean", "normalize.std"}.isdisjoint(report.loaded)
        reason = entry.preprocess.note or "the authors did not print it"
        _logger.warning(
            "the preprocessing of %s is not confirmed%s: %s",
            entry.name,
            ", but mean and std are those of the file" if held else "",
            reason,
        )
    return model, report


def _network(entry: Entry) -> nn.Module:
    """The bare network of `entry`."""
    if not entry.has_builder:
        raise ValueError(
            f"{entry.name} is listed for reference: there is no builder for its architecture ({entry.arch})"
        )
    if entry.checkpoint and "clip_image_classifier" in entry.checkpoint.key_mapping:
        return timm_clip_classifier(entry.arch, entry.num_classes, entry.arch_kwargs)
    name, arguments = entry.arch, dict(entry.arch_kwargs)
    if entry.arch_source == "timm.ResNet":
        name, arguments["block"] = "resnet50", _BLOCKS[entry.arch_kwargs["block"]]  # all else is in the arguments
    config = get_pretrained_cfg(name)
    size = entry.preprocess.input_size if entry.preprocess else None
    tied = config is not None and config.fixed_input_size and size != config.input_size[-1]
    return create_model(
        name,
        num_classes=entry.num_classes,
        img_size=size if tied else None,
        model_args=arguments,
        normalize=False,
    )
