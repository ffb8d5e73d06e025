"""Style augmentation with random style embeddings."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn

from robust_augs._fit import fit
from robust_augs._frozen import frozen, network_input
from robust_augs._images import check_images, check_share, like
from robust_augs._random import normal


@dataclass(frozen=True, kw_only=True)
class RandomStyleDraws:
    """What `RandomStyle` draws: the normal numbers (N, D) that become random embeddings."""

    normals: Tensor


@dataclass(frozen=True, eq=False)
class RandomStyle:
    """Repaint images in a random style, blended with their own.

    Jackson et al., "Style Augmentation: Data Augmentation via Style Randomization", CVPR Workshops 2019,
    arXiv:1809.05375, section 3: with n ~ N(0, I) and A A^T = covariance, the random embedding is z = A n + mean and the
    result transformer(images, alpha * z + (1 - alpha) * predictor(images)), clipped to [0, 1]. As published, mean and
    covariance are those of the 100-dimensional embeddings of many paintings.

    The networks are yours, computed in eval mode, in the dtype of the transformer's parameters, and left as they were.
    Both get images in [0, 1]: what else a predictor of the Inception family needs is `InceptionInput`, in front of it.
    A transformer may round the sides of an image: what is too long is cut off at the bottom and on the right, what is
    too short is stretched (bilinear).

    Differs from the published code: A is the symmetric root of the covariance, which is unique, so that the same draws
    give the same styles everywhere.

    Args:
        transformer: images (N, C, H, W) and embeddings (N, D) -> images.
        predictor: images -> their own embeddings (N, D).
        mean: of the embeddings of many styles, (D,) or (1, D).
        covariance: of the same, (D, D), symmetric and positive semi-definite.
        alpha: how much of the random style is taken, from 0 to 1.

    Raises:
        ValueError: if `alpha` is outside [0, 1], the shapes of `mean` and `covariance` do not match, or `covariance`
            is not finite, symmetric and positive semi-definite.
    """

    transformer: Callable[[Tensor, Tensor], Tensor]
    predictor: Callable[[Tensor], Tensor]
    mean: Tensor
    covariance: Tensor
    _: KW_ONLY
    alpha: float = 0.5
    root: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        mean = self.mean.flatten()
        if self.mean.shape[-1:] != mean.shape or self.covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean must have shape (D,) and covariance (D, D), got {tuple(self.mean.shape)} and "
                f"{tuple(self.covariance.shape)}"
            )
        object.__setattr__(self, "root", _symmetric_root(self.covariance))

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Repaint `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

        Args:
            images: the batch; it is not changed, and no gradient flows.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, or values that are not finite or outside [0, 1]; if the
                predictor's embeddings have another shape, or the transformer returns other than images of such a size.
        """
        check_images(images)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> RandomStyleDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        return RandomStyleDraws(normals=normal((shape[0], len(self.root)), generator, device))

    def embeddings(self, draws: RandomStyleDraws) -> Tensor:
        """The random embeddings z = A n + mean, (N, D), of N(mean, covariance)."""
        root, mean = self.root.to(draws.normals), self.mean.flatten().to(draws.normals)
        return draws.normals @ root.T + mean

    @torch.no_grad()
    def apply(self, images: Tensor, draws: RandomStyleDraws) -> Tensor:
        """Repaint `images` as drawn; a pure function of its arguments."""
        random = self.embeddings(draws)
        with frozen(self.transformer, self.predictor):
            own = self.predictor(network_input(self.predictor, images))
            if own.shape != random.shape:
                raise ValueError(
                    f"the predictor must return embeddings {tuple(random.shape)}, as mean has them, got "
                    f"{tuple(own.shape)}"
                )
            inputs = network_input(self.transformer, images)
            painted = self.transformer(inputs, torch.lerp(own.to(inputs), random.to(inputs), self.alpha))
        return like(images, fit(painted, images).clamp(0, 1))


def _symmetric_root(covariance: Tensor) -> Tensor:
    """The symmetric A with A A^T = `covariance`, in float64."""
    matrix = covariance.detach().double().cpu()
    if not bool(matrix.isfinite().all()) or not torch.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6):
        raise ValueError("covariance must be finite and symmetric")
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    # Rounding to float32 moves eigenvalues by about 1e-7 of the largest, those that are 0 below it.
    if float(values[0]) < -1e-5 * float(values[-1].abs()):
        raise ValueError(f"covariance must be positive semi-definite, got an eigenvalue of {float(values[0]):.3g}")
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


class InceptionInput(nn.Module):
    """Images in [0, 1] to the range [-1, 1] of the Inception networks: put it in front of a style predictor.

    The public port of random style reaches it by way of ImageNet's mean and standard deviation, which cancel; by a
    slip (0.255 for 0.225) they do not in its third channel. To use its predictor, leave its own steps out.

    Examples:
        >>> InceptionInput()(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-1.,  0.,  1.])
    """

    def forward(self, images: Tensor) -> Tensor:
        """2 * images - 1."""
        return 2 * images - 1
