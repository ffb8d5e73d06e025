"""A file that keeps what an evaluation knows so far."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

_FORMAT = "robust-attacks-checkpoint/1"


class Checkpoint:
    """Plain types and tensors under a fingerprint, written so that a killed process leaves the old file or the new one.

    Args:
        path: of the file; its folder is made.
        fingerprint: what must agree for a resumed run to be the same run, by name.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: dict[str, str]) -> None:
        self.path = Path(path)
        self._fingerprint = fingerprint

    def load(self) -> dict[str, Any] | None:
        """What was saved, or None if there is no file yet.

        Raises:
            ValueError: if the file cannot be read, or belongs to another run.
        """
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"{self.path} cannot be read as a checkpoint ({error}): delete it to begin anew"
            ) from error
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
            raise ValueError(f"{self.path} is no checkpoint of robust-attacks ({_FORMAT}): name another file")
        theirs = saved["fingerprint"]
        other = [name for name, value in self._fingerprint.items() if theirs.get(name) != value]
        if other:
            details = "; ".join(f"{name}: {theirs.get(name)} there, {self._fingerprint[name]} here" for name in other)
            raise ValueError(
                f"{self.path} belongs to another run ({details}): name another file, or delete it to begin anew"
            )
        known: dict[str, Any] = saved["known"]
        return known

    def save(self, known: dict[str, Any]) -> None:
        """Write plain types and tensors."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save({"format": _FORMAT, "fingerprint": self._fingerprint, "known": known}, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
