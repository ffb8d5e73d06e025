"""XCiT for small images, and the two larger XCiT of twelve blocks that timm does not have.

The networks are timm's class and take what that takes: images of any size, also where the patches do not divide it. No
weight is tied to a size, and the padding of the stem's convolutions rounds the number of patches up. `img_size` is only
noted, and has to be a multiple of the patches.
"""

import math
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.xcit import Xcit, checkpoint_filter_fn
from torch import nn

from robust_models.built_in_normalize import CIFAR10_MEAN, CIFAR10_STD


def adapt_patch_size(model: Xcit, new: int) -> Xcit:
    """Make the patches of timm's XCiT smaller, in place: the first convolutions of the stem stop skipping pixels.

    Debenedetti, Sehwag, Mittal, "A Light Recipe to Train Robust Vision Transformers", SaTML 2023, arXiv:2209.07399.
    Weights and names stay, so weights for 16-pixel patches start the training on small images. One convolution per
    factor of two gets stride 1.

    Args:
        model: timm's `Xcit`, adapted before or not.
        new: the patch size that is wanted, in pixels: the present one over 1, 2, 4, ...

    Raises:
        ValueError: if the stem cannot give patches of `new` pixels.
    """
    stem: Any = model.patch_embed
    old = stem.patch_size
    strided = [layer for layer in stem.proj.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    halvings = int(math.log2(old // new)) if 0 < new <= old else -1
    if not 0 <= halvings <= len(strided) or new * 2**halvings != old:
        possible = ", ".join(str(old // 2**step) for step in range(len(strided) + 1))
        raise ValueError(f"patches of {old} pixels can become {possible} pixels wide, got new={new}")
    for layer in strided[:halvings]:
        layer.stride = (1, 1)
    stem.patch_size = new
    stem.num_patches = math.prod(side // new for side in stem.img_size)
    for info in model.feature_info:
        info["reduction"] = new
    return model


def _xcit_for_small_images(img_size: int | tuple[int, int], **options: Any) -> Xcit:
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if height % 4 or width % 4:
        raise ValueError(f"the patches are 4 pixels wide: img_size must be a multiple of 4, got {img_size}")
    model = Xcit(**options)
    stem: Any = model.patch_embed
    stem.img_size = (height, width)  # not an argument of Xcit, which would want multiples of 16
    return adapt_patch_size(model, 4)


def _config(side: int, **changes: Any) -> dict[str, Any]:
    return {
        "url": "",
        "input_size": (3, side, side),
        "fixed_input_size": True,
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "first_conv": "patch_embed.proj.0.0",
        "classifier": "head",
        **changes,
    }


_imagenet = _config(224, num_classes=1000, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # trained on pixels in [0, 1]
_cifar = _config(32, num_classes=10, mean=CIFAR10_MEAN, std=CIFAR10_STD)

default_cfgs = generate_default_cfgs(
    {
        **{f"xcit_{size}_12_p16_224.untrained": _imagenet for size in ("medium", "large")},
        **{f"xcit_{size}_12_p4_32.untrained": _cifar for size in ("small", "medium", "large")},
    }
)


def _create(name: str, pretrained: bool, options: dict[str, Any], **sizes: int) -> Xcit:
    chosen = {"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"}
    settings = {"tokens_norm": True, **sizes, **options}
    build = _xcit_for_small_images if name.endswith("_32") else Xcit
    return build_model_with_cfg(
        build, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, feature_cfg=chosen, **settings
    )


@register_model
def xcit_medium_12_p16_224(pretrained: bool = False, **options: Any) -> Xcit:
    """XCiT-M12/16: 46,401,160 parameters."""
    return _create("xcit_medium_12_p16_224", pretrained, options, embed_dim=512, num_heads=8)


@register_model
def xcit_large_12_p16_224(pretrained: bool = False, **options: Any) -> Xcit:
    """XCiT-L12/16: 103,792,648 parameters."""
    return _create("xcit_large_12_p16_224", pretrained, options, embed_dim=768, num_heads=16)


@register_model
def xcit_small_12_p4_32(pretrained: bool = False, **options: Any) -> Xcit:
    """XCiT-S12 with 4-pixel patches, for CIFAR: 25,872,154 parameters."""
    return _create("xcit_small_12_p4_32", pretrained, options, embed_dim=384, num_heads=8)


@register_model
def xcit_medium_12_p4_32(pretrained: bool = False, **options: Any) -> Xcit:
    """XCiT-M12 with 4-pixel patches, for CIFAR: 45,893,290 parameters."""
    return _create("xcit_medium_12_p4_32", pretrained, options, embed_dim=512, num_heads=8)


@register_model
def xcit_large_12_p4_32(pretrained: bool = False, **options: Any) -> Xcit:
    """XCiT-L12 with 4-pixel patches, for CIFAR: 103,031,338 parameters."""
    return _create("xcit_large_12_p4_32", pretrained, options, embed_dim=768, num_heads=16)
