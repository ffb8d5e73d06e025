"""What a run was made from. Every checkpoint carries it, and only the same recipe and data may go on."""

import importlib.metadata
import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robust_train._fields import differences, plain
from robust_train.checkpoint import ResumeError
from robust_train.config import Recipe

logger = logging.getLogger("robust_train")

# Settings that change no number of the training.
_FREE = {"name", "source", "expected", "checkpoint_every", "evaluation.batch_size"}

# Without these being equal, the same operations may round differently.
_DECISIVE = ("torch", "device", "threads", "processes")


def describe_origin(
    recipe: Recipe, data: Mapping[str, Any], device: torch.device, processes: int = 1
) -> dict[str, Any]:
    """Plain values: the `recipe`, the `data` (their fingerprint), and the `versions` of what computes."""
    return {"recipe": plain(recipe), "data": dict(data), "versions": _versions(device, processes)}


def check_origin(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare what the checkpoint at `path` was made from with what would go on; log what costs bit-equality.

    Raises:
        ResumeError: if recipe or data differ; it names the settings, or what is different in the data.
    """
    folder = path.parent.parent
    changed = differences(before["recipe"], now["recipe"])
    if listed := "; ".join(_was(name, *values) for name, values in changed.items() if name not in _FREE):
        raise ResumeError(
            f"{folder} holds a run of another recipe ({listed}): choose another folder, or go back to its settings"
        )
    if listed := "; ".join(_was(name, *values) for name, values in differences(before["data"], now["data"]).items()):
        raise ResumeError(
            f"{folder} holds a run on other data ({listed}): give the data of the run, or choose another folder"
        )
    moved = [name for name in _DECISIVE if before["versions"][name] != now["versions"][name]]
    if moved:
        begun, goes_on = (", ".join(f"{name} {one['versions'][name]}" for name in moved) for one in (before, now))
        logger.warning(f"{folder} was begun with {begun} and goes on with {goes_on}: not bit-equal to an unbroken run")


def _was(name: str, old: Any, new: Any) -> str:
    return f"{name} was {old!r} and is now {new!r}"


def _versions(device: torch.device, processes: int) -> dict[str, str]:
    packages = ["torch", "timm", *(f"robust-{name}" for name in ("attacks", "bench", "models", "optim", "train"))]
    found = {name: importlib.metadata.version(name) for name in packages}
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        **found,
        "device": f"{device.type} ({kind})",
        "threads": str(torch.get_num_threads()),
        "processes": str(processes),
    }
