"""Give a second pass the random numbers of the first."""

from collections.abc import Iterable

import torch


class RandomState:
    """The state of torch's global generators, on the CPU and on the given devices, at the time of construction."""

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._cpu = torch.get_rng_state()
        self._others = {
            device: torch.get_device_module(device).get_rng_state(device)
            for device in set(devices)
            if device.type not in ("cpu", "meta")
        }

    def set(self) -> None:
        """Put the generators back to that state."""
        torch.set_rng_state(self._cpu)
        for device, state in self._others.items():
            torch.get_device_module(device).set_rng_state(state, device)
