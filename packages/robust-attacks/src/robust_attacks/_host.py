"""Where numbers of a tensor can be read without waiting for a device."""

from torch import Tensor


def can_look(tensor: Tensor) -> bool:
    """Whether the host may look at numbers of the tensor: on the CPU it may, so loops can end early there.

    Anywhere else a look would make the host wait for all that the device still has to do. There, loops make a fixed
    number of passes, and what need not be computed is computed and masked.
    """
    return tensor.device.type == "cpu"
