"""Adversarial noise training."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robust_augs._frozen import frozen, network_input
from robust_augs._images import check_images, check_share, like
from robust_augs._random import integers, normal, uniform
from robust_augs.clip_aware import add_clip_aware
from robust_augs.noise_generator import NoiseGenerator


@dataclass(frozen=True, kw_only=True)
class AdversarialNoiseDraws:
    """What `AdversarialNoise` draws.

    Attributes:
        version: whose noise each image gets, (N,) int64: -1 none, 0 the present generator, k the k-th remembered.
        normals: the generator's input, (N, C, H + 2 * border, W + 2 * border).
    """

    version: Tensor
    normals: Tensor


@dataclass(frozen=True, kw_only=True)
class AdversarialNoise:
    """Add noise of a distribution that is learned against the classifier (ANT).

    Rusak et al., "A simple way to make neural networks robust against diverse image corruptions", ECCV 2020,
    arXiv:2001.06057, section 3.2. A small network turns normal noise into the noise; it climbs the classifier's loss
    (`climb`) while the classifier descends on the noisy images. So that the classifier does not forget, a part of the
    images gets noise of earlier generators. In the published training on ImageNet, which starts from a trained
    classifier, every batch has a step of the generator (Adam, learning rate 1e-4) and then one of the classifier; after
    every epoch the generator is remembered, after every 10 it starts anew:

        loss = noise.climb(model, images, labels)      # its gradient reaches noise.network alone
        loss.backward(); generator_optimizer.step()
        logits = model(noise(images))                  # and a step of the classifier
        noise.network.remember()                       # after every epoch

    The noise of each image is scaled so that its L2 norm is eps after the sum is clipped to [0, 1] (Rauber and Bethge,
    "Fast Differentiable Clipping-Aware Normalization and Rescaling", arXiv:2007.07677). An image that cannot be moved
    so far in the direction of its noise is moved as far as it can.

    Overlaps with ImageNet-C, which has several kinds of noise among its corruptions: report a score without the noise
    group as well.

    Differs from the published code: whose noise an image gets is drawn per image, from all that are remembered, where a
    batch there has the noise of two of them; and the noise is that of the present generator until one is remembered.

    Args:
        network: the generator, of as many channels as the images. It is trained by your optimiser, not by a call.
        eps: L2 norm of the noise in units of [0, 1] pixels. The published 135 is for 3 x 224 x 224, where it is about
            what noise of sigma 0.5 has left after clipping; the same noise per pixel has
            135 * sqrt(C * H * W / 150528) elsewhere, 19.3 for 3 x 32 x 32.
        share: of the images in a batch that get noise, on average exactly.
        replay: of these, the share that gets noise of earlier generators.
        clip_aware: hold the norm after clipping to eps, as published; False holds the norm before clipping to it.

    Raises:
        ValueError: if `eps` is not a positive finite number, or a share is outside [0, 1].

    Examples:
        >>> noisy = AdversarialNoise(eps=4.0, share=1.0)(torch.full((2, 3, 16, 16), 0.5))
        >>> (noisy - 0.5).flatten(1).norm(dim=1).round(decimals=4)
        tensor([4., 4.])
    """

    network: NoiseGenerator = field(default_factory=NoiseGenerator)
    eps: float = 135.0
    share: float = 0.5
    replay: float = 0.4
    clip_aware: bool = True

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_share("replay", self.replay)
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"eps must be a positive finite number, got {self.eps}")

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Add noise to a share of `images` (N, C, H, W), floats in [0, 1] or uint8, for the classifier to learn from.

        Args:
            images: the batch; it is not changed, and no gradient flows.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape or other channels than the network, or values that are not finite
                or outside [0, 1]; if eps is more than any change of images of this size.
        """
        check_images(images)
        self._check_shape(images.shape)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def climb(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the optimiser of `network` minimises: minus the mean cross-entropy of `model` on images all made noisy.

        As published, the model is in eval mode meanwhile. The gradient reaches the network and nothing else.

        Args:
            model: images (N, C, H, W) -> logits (N, K).
            images: the clean batch; it is not changed.
            labels: class indices (N,) or probabilities (N, K).
            generator: where the noise comes from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: as for a call.
        """
        check_images(images)
        self._check_shape(images.shape)
        with torch.enable_grad():
            normals = self._normals(images.shape, generator, images.device)
            noise = self.network(network_input(self.network, normals))
            noisy = self._add(network_input(self.network, images).detach(), noise).to(images.device)
            with frozen(model):
                return -torch.nn.functional.cross_entropy(model(noisy), labels)

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> AdversarialNoiseDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        count, remembered = shape[0], len(self.network.earlier)
        # Of N images x = share * N get noise, floor(x + u) with u ~ U[0, 1), so x on average; likewise those of replay.
        fraction = uniform((1,), generator, device).double()
        noisy, replayed = ((share * count + fraction).floor() for share in (self.share, self.share * self.replay))
        rank = uniform((count,), generator, device).argsort().argsort()
        version = torch.where(rank < noisy, 0, -1)
        if remembered:
            earlier = integers((count,), 1, remembered, generator, device)
            version = torch.where(rank < replayed, earlier, version)
        return AdversarialNoiseDraws(version=version, normals=self._normals(shape, generator, device))

    @torch.no_grad()
    def apply(self, images: Tensor, draws: AdversarialNoiseDraws) -> Tensor:
        """Add noise to `images` as drawn; a pure function of its arguments and the network.

        The noise is made where the network is, and added to the images there.
        Only the noisy images are computed, so the host waits for the device once, to learn how many those are.
        """
        chosen = (draws.version >= 0).nonzero().squeeze(1)
        result = images.clone()
        if len(chosen) == 0:
            return result
        noise = self.network.replay(network_input(self.network, draws.normals[chosen]), draws.version[chosen])
        noisy = self._add(network_input(self.network, images[chosen]), noise)
        result[chosen] = like(images, noisy).to(images.device)
        return result

    def _normals(self, shape: torch.Size, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        border = 2 * self.network.border
        padded = (*shape[:2], shape[2] + border, shape[3] + border)
        return normal(padded, generator, device)

    def _add(self, images: Tensor, noise: Tensor) -> Tensor:
        if self.clip_aware:
            return add_clip_aware(images, noise, self.eps)
        norm = noise.flatten(1).norm(dim=1).clamp(min=torch.finfo(noise.dtype).tiny)
        noisy: Tensor = images + self.eps * noise / norm.view(-1, 1, 1, 1)
        return noisy.clamp(0, 1)

    def _check_shape(self, shape: torch.Size) -> None:
        if shape[1] != self.network.channels:
            raise ValueError(
                f"images have {shape[1]} channels, but the network makes noise for {self.network.channels}: "
                f"AdversarialNoise(network=NoiseGenerator({shape[1]}))"
            )
        largest = math.sqrt(shape[1:].numel())
        if self.eps >= largest:
            likewise = 135 * largest / math.sqrt(150528)
            raise ValueError(
                f"eps {self.eps:g} is more than any change of images {tuple(shape[1:])}, whose norm is below "
                f"{largest:.4g}: the published 135 is for (3, 224, 224), as much per pixel is eps={likewise:.3g} here"
            )
