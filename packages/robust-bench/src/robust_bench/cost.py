"""What a model costs."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robust_bench.lending import device_of, ready, undisturbed


def multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Count the multiplications, each with an addition, of convolutions and matrix products for one image.

    torch's counter counts both operations, so this is half of what it says; activations, normalisation and pooling are
    left out, as is customary.

    Args:
        model: the model.
        shape: of one image, (C, H, W).

    Returns:
        The count, or None for a model that fails on such an image; its evaluation says why.

    Examples:
        >>> multiply_adds(nn.Conv2d(3, 8, 3), (3, 10, 10))  # 8 x 8 positions, 8 x 3 x 3 x 3 weights
        13824
    """
    device = device_of(model)
    image = torch.full((1, *shape), 0.5, device=device)
    with undisturbed(device), ready(model, device), torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            model(image)
        except (
            RuntimeError,
            AssertionError,
            ValueError,
            IndexError,
            TypeError,
        ):  # what a shape that does not fit raises
            return None
    return int(counter.get_total_flops()) // 2
