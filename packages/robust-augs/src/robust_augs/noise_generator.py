"""The small network that learns which noise hurts a classifier, and its earlier states."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, skip_init


class NoiseGenerator(nn.Module):
    """Turn normal noise into noise of another distribution, and remember earlier versions of itself.

    Rusak et al., ECCV 2020, arXiv:2001.06057, section 3.2: four convolutions with ReLU between them, and their input
    added to their output. With kernels of 1 (ANT 1x1) the noise of a pixel does not depend on other pixels; with 3 in
    the second convolution (ANT 3x3) it depends on its neighbours. Weights start from N(0, 0.01^2) and biases from 0, so
    the first noise is all but normal.

    The earlier versions lie in a buffer: `state_dict()` saves them and `load_state_dict` restores however many
    there are.

    Args:
        channels: of the images.
        kernel_size: of the second convolution, 1 or 3.
        hidden: channels between the convolutions.
        generator: where the first weights are drawn; None takes torch's default generator.

    Attributes:
        earlier: the parameters of the earlier versions, one row each, (versions, parameters).
        border: pixels that the input must have more than the noise on every side: 0, or 1 with kernels of 3.

    Raises:
        ValueError: if `kernel_size` is another.
    """

    earlier: Tensor

    def __init__(
        self,
        channels: int = 3,
        *,
        kernel_size: Literal[1, 3] = 1,
        hidden: int = 20,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kernel_size not in (1, 3):
            raise ValueError(f"kernel_size must be 1 or 3, got {kernel_size}")
        self.channels, self.border = channels, kernel_size // 2
        sizes = [(channels, hidden, 1), (hidden, hidden, kernel_size), (hidden, hidden, 1), (hidden, channels, 1)]
        # skip_init: torch's own start would draw from the default generator.
        first, second, third, last = (skip_init(nn.Conv2d, a, b, size) for a, b, size in sizes)  # type: ignore[no-untyped-call]
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), last)
        self.reset_parameters(generator=generator)
        self.register_buffer("earlier", torch.empty(0, sum(value.numel() for value in self.parameters())))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Start anew; what is remembered stays.

        The published training does so every 10 epochs and then trains the generator alone for 1,000 steps (Adam,
        learning rate 5e-4).
        """
        for name, value in self.named_parameters():
            if name.endswith("weight"):
                value.normal_(0, 0.01, generator=generator)
            else:
                value.zero_()

    @torch.no_grad()
    def remember(self) -> None:
        """Add the present parameters to the earlier versions."""
        self.earlier = torch.cat([self.earlier, parameters_to_vector(self.parameters())[None]])

    def forward(self, normals: Tensor) -> Tensor:
        """Noise (N, C, H, W) from `normals` (N, C, H + 2 * border, W + 2 * border), numbers of N(0, 1)."""
        inner = slice(self.border, -self.border or None)
        noise: Tensor = self.layers(normals) + normals[..., inner, inner]
        return noise

    def replay(self, normals: Tensor, version: Tensor) -> Tensor:
        """The same by `version` (N,) of the generator for each image: 0 is the present one, k the k-th remembered."""
        present = parameters_to_vector(self.parameters())[None]
        vectors = torch.cat([present, self.earlier])[version.to(present.device)]
        return torch.vmap(self._with)(vectors, normals)

    def _with(self, vector: Tensor, normals: Tensor) -> Tensor:
        """Noise of one image by the generator whose parameters are `vector`."""
        shapes = {name: value.shape for name, value in self.named_parameters()}
        parts = torch.split(vector, [shape.numel() for shape in shapes.values()])
        parameters = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        noise: Tensor = torch.func.functional_call(self, parameters, (normals[None],))
        return noise[0]


def _make_room(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded, give its earlier versions the room they need."""
    if (saved := state.get(prefix + "earlier")) is not None:
        module.earlier = module.earlier.new_empty(saved.shape)  # type: ignore[operator]
