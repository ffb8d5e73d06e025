"""Vectors replaced by the nearest of a codebook."""

import torch
from torch import Tensor, nn


class VectorQuantizer(nn.Module):
    """Replace the vector in each cell of a map by the nearest vector of a learnt codebook.

    van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, arXiv:1711.00937. The codebook starts
    uniform in [-1 / codes, 1 / codes], as in the published VQGAN. Distances are computed in float32 at least, also
    under autocast.

    Args:
        codes: number of vectors.
        width: of each vector.
        straight_through: let the gradient of the output go to the input as if the two were equal; without it the
            input gets none. The codebook gets the gradient of the vectors that were taken either way.
    """

    def __init__(self, codes: int, width: int, *, straight_through: bool = False) -> None:
        super().__init__()
        self.straight_through = straight_through
        self.embedding = nn.Embedding(codes, width)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def forward(self, latents: Tensor) -> Tensor:
        """Map (N, width, h, w) to the nearest vectors of the codebook, in the same shape."""
        vectors = self.vectors(self.indices(latents))
        return vectors + (latents - latents.detach()) if self.straight_through else vectors

    def indices(self, latents: Tensor) -> Tensor:
        """Numbers (N, h, w) in [0, codes) of the nearest vectors, in the Euclidean distance."""
        codebook = self.embedding.weight.detach()
        dtype = torch.promote_types(codebook.dtype, torch.float32)
        codebook, cells = codebook.to(dtype), latents.detach().movedim(1, -1).to(dtype)
        with torch.autocast(latents.device.type, enabled=False):
            # The square of a cell itself is the same for all codes.
            distances = codebook.square().sum(1) - 2 * (cells @ codebook.T)
        return distances.argmin(-1)

    def vectors(self, indices: Tensor) -> Tensor:
        """The vectors (N, width, h, w) of numbers (N, h, w)."""
        found: Tensor = self.embedding(indices)
        return found.movedim(-1, 1)
