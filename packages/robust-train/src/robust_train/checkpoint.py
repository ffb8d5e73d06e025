"""Checkpoints that are either whole or recognised as damaged."""

import hashlib
import io
import logging
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from robust_bench.files import write_durably

from robust_train.errors import SetupError

logger = logging.getLogger("robust_train")

_NAME = re.compile(r"(last|best)-(\d{8,})-([0-9a-f]{16})\.pt")


class ResumeError(SetupError):
    """The folder holds a run that this call cannot go on with."""


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged and an older one is used."""


def save(folder: Path, kind: str, update: int, state: Mapping[str, Any]) -> Path:
    """Write `state` as `<kind>-<update>-<checksum>.pt` and return its path.

    The file is written under a temporary name, forced to the disk and renamed, so a process that is killed leaves the
    older checkpoints and at most a temporary file. The name carries the first 16 digits of the content's sha256: a
    damaged file does not match its own name.

    Args:
        folder: where the checkpoints lie; it exists.
        kind: "last" or "best".
        update: number of updates that are done.
        state: tensors, plain values, and mappings and lists of them.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    path = folder / f"{kind}-{update:08d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    write_durably(path, content)
    return path


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest whole checkpoint, or None where there is none.

    A damaged one is passed over with a `CheckpointWarning` and a line in the log, and the one before it is used.
    Nothing in a checkpoint is ever executed (`weights_only=True`).
    """
    return _first_whole(listed(folder)[::-1])


def of_update(folder: Path, update: int) -> tuple[Path, dict[str, Any]] | None:
    """Read a whole checkpoint that was written after this update, of either kind, or None where there is none."""
    return _first_whole([path for path in listed(folder) if int(path.name.split("-")[1]) == update])


def _first_whole(paths: Sequence[Path]) -> tuple[Path, dict[str, Any]] | None:
    for index, path in enumerate(paths):
        content = path.read_bytes()
        match = _NAME.fullmatch(path.name)
        if match and hashlib.sha256(content).hexdigest()[:16] == match.group(3):
            return path, torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        rest = paths[index + 1 :]
        instead = f"{rest[0].name} is tried instead" if rest else "there is no other to use instead"
        message = f"the checkpoint {path} is truncated or damaged: it is renamed to .damaged, and {instead}"
        path.rename(path.with_suffix(".damaged"))  # or else it would pass for the newest again
        logger.warning(message)
        warnings.warn(message, CheckpointWarning, stacklevel=3)
    return None


def restore(path: Path, state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Give every part (model, optimizer, ...) the state that the checkpoint has for it.

    Args:
        path: of the checkpoint, for messages.
        state: its content.
        parts: objects with `load_state_dict`, by name.

    Raises:
        ResumeError: if the model or the optimizer are not those of the checkpoint.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ResumeError(
            f"{path} does not fit the model or optimizer of this recipe, probably because timm or torch changed "
            f"since (see versions.json): install what it was made with, or choose another folder ({error})"
        ) from error


def listed(folder: Path, kinds: Collection[str] = ("last", "best")) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    found = [(match, path) for path in folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: (int(pair[0].group(2)), pair[0].group(1), pair[1].name))
    return [path for match, path in found if match.group(1) in kinds]


def prune(folder: Path) -> None:
    """Keep the last two checkpoints and the best one, and remove what an interrupted `save` left."""
    for path in [*listed(folder, ["last"])[:-2], *listed(folder, ["best"])[:-1], *folder.glob(".*.tmp")]:
        path.unlink(missing_ok=True)
