"""A network that is trained against the model."""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


class Opponent:
    """A network that climbs the loss while the model descends it, and its optimizer.

    Args:
        network: what is trained against the model.
        optimizer: of its parameters.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer) -> None:
        self.network = network
        self.optimizer = optimizer

    def follow(self, images: Tensor) -> None:
        """Move to the device and the dtype of the images, which are known only when there are some."""
        weight = next(self.network.parameters())
        if (weight.device, weight.dtype) != (images.device, images.dtype):
            self.network.to(images)
            self.optimizer.load_state_dict(self.optimizer.state_dict())  # its state moves to the parameters

    def state_dict(self) -> dict[str, Any]:
        """Weights and state of the optimizer."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.network.to(next(iter(state_dict["network"].values())))
        self.network.load_state_dict(state_dict["network"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
