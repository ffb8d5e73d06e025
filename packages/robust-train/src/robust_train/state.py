"""Where a run is: everything that an interruption must not lose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_train import checkpoint
from robust_train.processes import Processes
from robust_train.run_folder import Record
from robust_train.window import Window


@torch.no_grad()
def restore_buffers(model: nn.Module, buffers: Mapping[str, torch.Tensor]) -> None:
    """Give the model the buffers of a checkpoint."""
    for name, buffer in model.named_buffers():
        if name in buffers:
            buffer.copy_(buffers[name])


@dataclass(kw_only=True)
class State:
    """What a checkpoint holds; with the recipe and the data it decides every update that follows.

    Attributes:
        parts: model, optimizer, scaler and average: objects with a `state_dict`, by name.
        update: number of updates that are done.
        window: sums since the last line of metrics.jsonl.
        whole: sums since the epoch began.
        history: one record per epoch that is done.
        best: update, epoch and accuracies of the best evaluation so far.
    """

    parts: dict[str, Any]
    update: int = 0
    window: Window = field(default_factory=Window)
    whole: Window = field(default_factory=Window)
    history: list[Record] = field(default_factory=list)
    best: Record = field(default_factory=dict)

    def add(self, metrics: Mapping[str, torch.Tensor], images: int) -> None:
        """Count one update with the sums over the images of its batch."""
        self.update += 1
        for sums in (self.window, self.whole):
            sums.add(metrics, images)

    def gather(self, processes: Processes) -> None:
        """Bring the sums of all processes to the first."""
        for sums in (self.window, self.whole):
            sums.gather(processes)

    def is_finite(self) -> bool:
        """Whether the sums and the weights are numbers."""
        model: nn.Module = self.parts["model"]
        return self.window.is_finite() and all(torch.isfinite(weight).all() for weight in model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, to go into a checkpoint."""
        return {
            **{name: part.state_dict() for name, part in self.parts.items()},
            "window": self.window.state_dict(),
            "whole": self.whole.state_dict(),
            "update": self.update,
            "history": self.history,
            "best": self.best,
        }

    def restore(self, path: Path, state: Mapping[str, Any], device: torch.device) -> None:
        """Take the state of the checkpoint at `path`.

        Raises:
            ResumeError: if the model or the optimizer are not those of the checkpoint.
        """
        checkpoint.restore(path, state, self.parts)
        self.window.load_state_dict(state["window"], device)
        self.whole.load_state_dict(state["whole"], device)
        self.update, self.history, self.best = state["update"], state["history"], state["best"]
