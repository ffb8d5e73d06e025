"""How similar the attention of a model is on two versions of the same images."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_models.attention import attention_maps


@dataclass(frozen=True, kw_only=True)
class AttentionSimilarity:
    """Cosine similarities of attention maps.

    Args:
        layers: for every layer, by its name, the similarity of every image and head, (N, heads) in [0, 1].
        left_out: layers without attention between tokens, and why.
        logits: of the second images, (N, K).
    """

    layers: Mapping[str, Tensor]
    left_out: Mapping[str, str]
    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean over all heads of all layers, (N,)."""
        return torch.cat(list(self.layers.values()), dim=1).mean(dim=1)


def attention_similarity(model: nn.Module, images: Tensor, others: Tensor) -> AttentionSimilarity:
    """Compare the attention maps of images with those of others, e.g. of the same images with occluded patches.

    Guo, Stutz & Schiele, "Improving Robustness of Vision Transformers by Reducing Sensitivity to Patch Corruptions"
    (RSPC), CVPR 2023, Figures 2, 4 and 5. A head's map is flattened; the windows of an image, where there are some, are
    parts of one map. Only one layer's maps are held at a time. See `attention_maps` for what is read and what is not.

    Args:
        model: images to logits.
        images: float (N, C, H, W) in [0, 1].
        others: as many of the same shape.

    Raises:
        TypeError: if the model is no module.
        ValueError: if the shapes differ, or the model has no attention between tokens.

    Examples:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
        >>> images = torch.rand(2, 3, 32, 32)
        >>> attention_similarity(model, images, images).mean.detach()
        tensor([1., 1.])
    """
    if images.shape != others.shape:
        raise ValueError(f"images and others must have one shape, got {tuple(images.shape)} and {tuple(others.shape)}")
    count = len(images)

    def cosines(maps: Tensor) -> Tensor:
        by_head = maps.double().reshape(2, count, -1, *maps.shape[1:]).transpose(2, 3).flatten(3)
        of_images, of_others = by_head.unbind(0)
        lengths = by_head.square().sum(dim=3).prod(dim=0).sqrt()
        return ((of_images * of_others).sum(dim=2) / lengths).float()

    found = attention_maps(model, torch.cat((images, others)), keep=cosines)
    return AttentionSimilarity(layers=found.maps, left_out=found.left_out, logits=found.logits[count:])
