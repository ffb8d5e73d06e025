"""PRIME: mixtures of chains of maximum-entropy transformations."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from robust_augs._draws import select
from robust_augs._images import as_float, check_images, like
from robust_augs._random import beta, dirichlet, integers
from robust_augs.chains import LONGEST, check_mixture
from robust_augs.color import RandomColor
from robust_augs.diffeomorphism import Diffeomorphism
from robust_augs.filter import RandomFilter


class Primitive(Protocol):
    """What PRIME mixes: a transformation of images in [0, 1] whose draws are a dataclass of tensors (N, ...)."""

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> Any:
        """Draw for a batch of `shape` (N, C, H, W)."""
        ...

    def apply(self, images: Tensor, draws: Any) -> Tensor:
        """Transform `images` as drawn."""
        ...


@dataclass(frozen=True, kw_only=True)
class PRIMEDraws:
    """What `PRIME` draws for N images, W chains of up to D steps.

    Args:
        share: (N,), of the mixture of chains in the result; the rest is the image.
        weights: (N, W), of the chains in the mixture.
        primitive: (N, W, D) int64 on the CPU, which primitive each step applies; -1 where the chain has ended.
        place: (N, W, D) int64 on the CPU, where the step's parameters are among those of its primitive.
        parameters: the draws of each primitive, for all steps that apply it.
    """

    share: Tensor
    weights: Tensor
    primitive: Tensor
    place: Tensor
    parameters: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class PRIME:
    """Mix each image with chains of random deformations, colour maps and filters.

    Modas et al., "PRIME: A Few Primitives Can Boost Robustness to Common Corruptions", ECCV 2022, arXiv:2112.13547:
    three chains apply one to three steps each; every step is one of the primitives, uniformly; with m ~ Beta(1, 1) and
    w ~ Dirichlet(1, ..., 1) the result is

        (1 - m) * x + m * sum_i w_i * chain_i(x).

    The published training on CIFAR adds 12 times `jensen_shannon` of the clean and two augmented views. On ImageNet a
    pretrained ResNet-50 is trained for 100 epochs, as a rule without that term, by SGD with Nesterov momentum, its
    learning rate going up to 0.01 per 256 images in the first tenth of a single cycle.

    Differs from the published code: everything is drawn per image, where that draws one field, cut, temperature and
    sigma per batch and step (depths and choices are per image in both); only the drawn primitive is computed; the
    filters are centred (see `RandomFilter`); images are in [0, 1] also while they are mixed, which is the same since
    mixing commutes with normalisation.

    Images must be square, because `Diffeomorphism` needs that; leave it out of `primitives` for others.

    Args:
        primitives: what the steps choose from.
        width: number of chains, at least 1.
        depth: steps per chain; -1 draws 1, 2 or 3 for each chain.

    Attributes:
        cifar: the published settings on CIFAR.
        imagenet: the published settings on ImageNet, the default.

    Raises:
        ValueError: if there is no primitive, or `width` or `depth` is out of its range.

    Examples:
        >>> images = torch.rand(8, 3, 32, 32)
        >>> PRIME.cifar(images, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """

    primitives: tuple[Primitive, ...] = (Diffeomorphism(), RandomColor(), RandomFilter())
    width: int = 3
    depth: int = -1

    cifar: ClassVar["PRIME"]
    imagenet: ClassVar["PRIME"]

    def __post_init__(self) -> None:
        if not self.primitives:
            raise ValueError("PRIME needs primitives to choose from, such as (RandomColor(), RandomFilter()), got none")
        object.__setattr__(self, "primitives", tuple(self.primitives))
        check_mixture(self.width, self.depth)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Augment `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

        Args:
            images: the batch; it is not changed.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, values that are not finite or outside [0, 1], or is not square
                and `Diffeomorphism` is among the primitives.
        """
        check_images(images)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> PRIMEDraws:
        """Draw for a batch of `shape` (N, C, H, W).

        The host has to know which images take which primitive; if the generator is on a device, it waits for that.
        """
        count = shape[0]
        share = beta((count,), 1, 1, generator, device)
        weights = dirichlet((count, self.width), 1, generator, device)
        steps = LONGEST if self.depth == -1 else self.depth
        depth = integers((count, self.width, 1), 1 if self.depth == -1 else steps, steps, generator, device)
        primitive = integers((count, self.width, steps), 0, len(self.primitives) - 1, generator, device)
        primitive = torch.where(torch.arange(steps, device=depth.device) < depth, primitive, -1).cpu()
        place, parameters = torch.full_like(primitive, -1), []
        for number, this in enumerate(self.primitives):
            chosen = primitive == number
            total = int(chosen.sum())
            place[chosen] = torch.arange(total)
            parameters.append(this.sample(torch.Size((total, *shape[1:])), generator, device=device))
        return PRIMEDraws(share=share, weights=weights, primitive=primitive, place=place, parameters=tuple(parameters))

    @torch.no_grad()
    def apply(self, images: Tensor, draws: PRIMEDraws) -> Tensor:
        """Augment `images` as drawn; a pure function of its arguments."""
        floats = as_float(images)
        result = floats * (1 - draws.share).view(-1, 1, 1, 1).to(floats.dtype)
        end = torch.empty_like(floats)
        for chain in range(self.width):
            self._follow(chain, floats, draws, end)
            weight = draws.share * draws.weights[:, chain]
            result.addcmul_(end, weight.view(-1, 1, 1, 1).to(floats.dtype))
        return like(images, result.clamp_(0, 1))  # a convex sum may round to a little more than 1

    def _follow(self, chain: int, images: Tensor, draws: PRIMEDraws, end: Tensor) -> None:
        """Write into `end` what one chain makes of `images`; every step computes a primitive where it was drawn."""
        for step in range(draws.primitive.shape[2]):
            start = end if step else images  # no chain is without a first step, so that this fills all of `end`
            for number, this in enumerate(self.primitives):
                rows = (draws.primitive[:, chain, step] == number).nonzero().squeeze(1)
                if len(rows):
                    place = draws.place[rows, chain, step].to(images.device)
                    rows = rows.to(images.device)
                    changed = this.apply(start.index_select(0, rows), select(draws.parameters[number], place))
                    end.index_copy_(0, rows, changed)


PRIME.cifar = PRIME(primitives=(Diffeomorphism.cifar, RandomColor.cifar, RandomFilter()))
PRIME.imagenet = PRIME(primitives=(Diffeomorphism.imagenet, RandomColor.imagenet, RandomFilter()))
