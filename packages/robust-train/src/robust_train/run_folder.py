"""The folder of a training run: its recipe, its versions, its records and what comes out."""

import csv
import importlib.metadata
import io
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robust_train.checkpoint import ResumeError, write_atomically
from robust_train.config import Recipe

# What differs between two runs of the same recipe and seed; everything else in the records is equal.
TIMES = ("seconds", "images_per_second")

Record = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """A folder with config.yaml, versions.json, metrics.jsonl, summary.csv, checkpoints and model.safetensors.

    Args:
        path: the folder; `prepare` makes it.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The exported weights, for `robust_models.load_weights`."""
        return self.path / "model.safetensors"

    def append(self, record: Record) -> None:
        """Add a line to `metrics.jsonl`; it has reached the disk when this returns."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def keep_until(self, update: int) -> list[Record]:
        """Drop the lines of `metrics.jsonl` after an update, or after a broken line, and return what stays."""
        file = self.path / "metrics.jsonl"
        kept: list[Record] = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break  # the process was killed while it wrote this line
            if record["update"] > update:
                break
            kept.append(record)
        write_atomically(file, "".join(json.dumps(record) + "\n" for record in kept).encode())
        return kept

    def write_summary(self, history: list[Record]) -> None:
        """Write `summary.csv`: one line per epoch."""
        names = list(dict.fromkeys(name for record in history for name in record if name != "kind"))
        text = io.StringIO()
        table = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        write_atomically(self.path / "summary.csv", text.getvalue().encode())


def open_run(out: str | os.PathLike[str], recipe: Recipe, resume: bool) -> RunFolder:
    """Look whether the folder `out` can take a run of the recipe, and write nothing yet.

    Raises:
        ResumeError: if it holds a run of another recipe, or any run without `resume`.
        NotADirectoryError: if it is a file.
    """
    run = RunFolder(Path(out))
    if run.path.exists() and not run.path.is_dir():
        raise NotADirectoryError(f"{run.path} is a file: the run needs a folder of its own")
    config = run.path / "config.yaml"
    if config.exists():
        if not resume:
            raise ResumeError(f"{run.path} already holds a run: choose another folder, or resume it")
        differences = Recipe.from_yaml(config.read_text(encoding="utf-8")).differences(recipe)
        if differences:
            listed = "; ".join(f"{name} was {old!r} and is now {new!r}" for name, (old, new) in differences.items())
            raise ResumeError(
                f"{run.path} holds a run of another recipe ({listed}): choose another folder, or go back to its "
                "settings"
            )
    return run


def prepare(run: RunFolder, recipe: Recipe, device: torch.device) -> None:
    """Make the folder, and write `config.yaml` and `versions.json`: what the run is, and what it was made with last."""
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    write_atomically(run.path / "config.yaml", recipe.to_yaml().encode())
    packages = ["torch", "timm", *(f"robust-{name}" for name in ("attacks", "bench", "models", "optim", "train"))]
    versions = {name: importlib.metadata.version(name) for name in packages}
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    found = {"python": platform.python_version(), **versions, "device": f"{device.type} ({kind})"}
    found["threads"] = str(torch.get_num_threads())
    write_atomically(run.path / "versions.json", (json.dumps(found, indent=2) + "\n").encode())


class Window:
    """Sums of an objective's metrics over the updates since the last record; they lie on the device until read."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.images = 0

    def add(self, metrics: Mapping[str, torch.Tensor], images: int) -> None:
        """Add the sums over the images of one batch."""
        for name, value in metrics.items():
            total = self.sums.get(name, torch.zeros((), dtype=torch.float64, device=value.device))
            self.sums[name] = total + value
        self.images += images

    def means(self) -> dict[str, float]:
        """The means over the images so far."""
        return {name: total.item() / self.images for name, total in self.sums.items()}

    def is_finite(self) -> bool:
        """Whether all sums are numbers."""
        return all(math.isfinite(total.item()) for total in self.sums.values())

    def state_dict(self) -> dict[str, Any]:
        """The sums, to go into a checkpoint."""
        return {"sums": dict(self.sums), "images": self.images}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take the sums of a checkpoint."""
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.images = state["images"]
