"""Sums of an objective's metrics."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from robust_train.processes import Processes


class Window:
    """Sums of an objective's metrics over the updates since the last record; they lie on the device until read."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.images = 0

    def add(self, metrics: Mapping[str, torch.Tensor], images: int) -> None:
        """Add the sums over the images of one batch."""
        for name, value in metrics.items():
            total = self.sums.get(name, torch.zeros((), dtype=torch.float64))
            self.sums[name] = total.to(value.device) + value
        self.images += images

    def means(self) -> dict[str, float]:
        """The means over the images so far."""
        return {name: total.item() / max(self.images, 1) for name, total in self.sums.items()}

    def is_finite(self) -> bool:
        """Whether all sums are numbers."""
        return all(math.isfinite(total.item()) for total in self.sums.values())

    def gather(self, processes: Processes) -> None:
        """Bring the sums of all processes to the first; the others begin anew."""
        if processes.size == 1:
            return
        names = sorted(set().union(*processes.gathered(list(self.sums))))
        mine = [self.sums[name].item() if name in self.sums else 0.0 for name in names]
        *sums, images = processes.totals([*mine, self.images])
        for name, total in zip(names, sums, strict=True):
            self.sums[name] = torch.tensor(total if processes.first else 0.0, dtype=torch.float64)
        self.images = round(images) if processes.first else 0

    def state_dict(self) -> dict[str, Any]:
        """The sums, to go into a checkpoint."""
        return {"sums": dict(self.sums), "images": self.images}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take the sums of a checkpoint."""
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.images = state["images"]
