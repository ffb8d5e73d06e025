"""Convolutional stems in place of patch embeddings, for ConvNeXt and vision transformers."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.norm import LayerNorm2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from timm.models.convnext import checkpoint_filter_fn as convnext_filter
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as vit_filter
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class ConvStem(nn.Module):
    """3 x 3 convolutions, each followed by a norm over channels and GELU, and perhaps a 1 x 1 convolution.

    Singh, Croce, Hein, "Revisiting Adversarial Training for ImageNet: Architectures, Training and Generalization across
    Threat Models", NeurIPS 2023, arXiv:2303.01870.

    Args:
        in_chans: channels of the images.
        widths: channels behind each convolution.
        strides: of each convolution.
        out_chans: channels behind a last 1 x 1 convolution; None means there is none.
    """

    def __init__(
        self, in_chans: int, widths: Sequence[int], strides: Sequence[int], out_chans: int | None = None
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in zip((in_chans, *widths), widths, strides, strict=False):
            layers += [nn.Conv2d(before, width, 3, stride, padding=1), LayerNorm2d(width, eps=1e-6), nn.GELU()]
        if out_chans is not None:
            layers.append(nn.Conv2d(widths[-1], out_chans, 1))
        self.stem = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Embed `images` (N, C, H, W); a map (N, D, H / stride, W / stride) comes back."""
        embedded: Tensor = self.stem(images)
        return embedded


def convert_convstem(model: Network) -> Network:
    """Replace the patch embedding of timm's ConvNeXt or VisionTransformer by a fresh `ConvStem`, in place.

    The published widths are those of ConvNeXt-T, S, B and L and of 16-pixel patches; other ConvNeXt get stems of the
    same proportions. Everything else keeps its weights. A model that has a `ConvStem` is left alone.

    Args:
        model: timm's `ConvNeXt` with a patch stem of 4 pixels, or 16 for the isotropic one, or its `VisionTransformer`
            with patches of 16 pixels.

    Raises:
        ValueError: for another kind of model or stem.
    """
    if not isinstance(model, ConvNeXt | VisionTransformer):
        raise ValueError(
            f"ConvStem replaces the patches of timm's ConvNeXt and VisionTransformer, got {type(model).__name__}"
        )
    network: Any = model
    name = "stem" if isinstance(model, ConvNeXt) else "patch_embed.proj"
    old = network.get_submodule(name)
    if isinstance(old, ConvStem):
        return model
    patch: Any = old[0] if isinstance(old, nn.Sequential) else old
    stem = _stem_in_place_of(patch, isinstance(model, ConvNeXt))
    network.set_submodule(name, stem.to(patch.weight).train(network.training))
    if hasattr(network, "pretrained_cfg"):
        network.pretrained_cfg = network.default_cfg = {**network.pretrained_cfg, "first_conv": f"{name}.stem.0"}
    return model


def _stem_in_place_of(patch: nn.Module, convnext: bool) -> ConvStem:
    side = patch.stride if isinstance(patch, nn.Conv2d) and patch.kernel_size == patch.stride else None
    if isinstance(patch, nn.Conv2d) and side == (16, 16):
        return ConvStem(patch.in_channels, (48, 96, 192, 384), (2, 2, 2, 2), patch.out_channels)
    if isinstance(patch, nn.Conv2d) and side == (4, 4) and convnext:
        width = patch.out_channels
        if width <= 96:
            return ConvStem(patch.in_channels, (width // 2, width), (2, 2))
        return ConvStem(patch.in_channels, (width // 2, 3 * width // 4, width), (2, 2, 1))
    raise ValueError(
        f"ConvStem replaces patches of {'4 or 16' if convnext else '16'} pixels, got the patch embedding {patch}"
    )


def isotropic_width(state_dict: dict[str, Any]) -> int:
    """Channels of the isotropic ConvNeXt whose weights these are: the `dim` to build `convnext_iso_cvst` with.

    Raises:
        ValueError: if there is no first block among the weights.
    """
    state = _unwrapped(state_dict)
    for key, value in state.items():
        if key.endswith("blocks.0.norm.weight"):
            return len(value)
    raise ValueError(f"not the weights of a ConvNeXt: blocks.0.norm.weight is not in {', '.join(state)[:200]}")


def checkpoint_filter(state_dict: dict[str, Any], model: ConvNeXt | VisionTransformer) -> dict[str, Tensor]:
    """Fit a published file to `model`: unwrap it, give the layers timm's names, resize the position table.

    Args:
        state_dict: names to tensors, also under `model` or `state_dict`.
        model: what the weights are for; it stays as it is.

    Raises:
        ValueError: if the weights are those of an isotropic ConvNeXt of another width.
    """
    state = _unwrapped(state_dict)
    if isinstance(model, VisionTransformer):
        return vit_filter(state, model, adapt_layer_scale=True)
    if len(model.stages) == 1:
        state = {f"stages.0.{key}" if key.startswith("blocks.") else key: value for key, value in state.items()}
        if (width := isotropic_width(state)) != model.num_features:
            raise ValueError(
                f"the weights are {width} wide, the network {model.num_features}: build it with dim={width}"
            )
    fitted: dict[str, Tensor] = convnext_filter(state, model)  # type: ignore[no-untyped-call]
    return fitted


def _unwrapped(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = state_dict.get("model", state_dict.get("state_dict", state_dict))
    return state


def _convnext(**options: Any) -> ConvNeXt:
    return convert_convstem(ConvNeXt(**options))


def _isotropic_convnext(dim: int, depth: int, **options: Any) -> ConvNeXt:
    """Blocks of one width on one map: timm's ConvNeXt whose stages 2 to 4 are empty, without them."""
    model = ConvNeXt(depths=(depth, 0, 0, 0), dims=(dim,) * 4, patch_size=16, ls_init_value=None, **options)
    model.stages, model.feature_info = model.stages[:1], model.feature_info[:1]
    return convert_convstem(model)


def _vision_transformer(**options: Any) -> VisionTransformer:
    return convert_convstem(VisionTransformer(**options))


def _config(stem: str, classifier: str, **changes: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.0, 0.0, 0.0),  # pixels in [0, 1] go straight in
        "std": (1.0, 1.0, 1.0),
        "first_conv": f"{stem}.stem.0",
        "classifier": classifier,
        **changes,
    }


_convnext_config = _config("stem", "head.fc", pool_size=(7, 7))
_vit_config = _config("patch_embed.proj", "head", fixed_input_size=True)
_imagenet = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}

default_cfgs = generate_default_cfgs(
    {
        **{f"convnext_{size}_cvst.untrained": _convnext_config for size in ("tiny", "small", "base", "large")},
        "convnext_iso_cvst.untrained": {**_convnext_config, "pool_size": (14, 14)},
        "vit_small_cvst.untrained": {**_vit_config, **_imagenet},
        **{f"vit_{size}_cvst.untrained": _vit_config for size in ("medium", "base")},
    }
)


def _create(
    build: Callable[..., Network], name: str, pretrained: bool, options: dict[str, Any], **sizes: Any
) -> Network:
    chosen: dict[str, Any] = {"out_indices": (0,) if "iso" in name else (0, 1, 2, 3), "flatten_sequential": True}
    if name.startswith("vit"):
        chosen = {"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"}
        sizes = {"patch_size": 16, "depth": 12, **sizes}
    return build_model_with_cfg(
        build, name, pretrained, pretrained_filter_fn=checkpoint_filter, feature_cfg=chosen, **{**sizes, **options}
    )


@register_model
def convnext_tiny_cvst(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """ConvNeXt-T, stem 48, 96: 28,627,432 parameters."""
    sizes = {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)}
    return _create(_convnext, "convnext_tiny_cvst", pretrained, options, **sizes)


@register_model
def convnext_small_cvst(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """ConvNeXt-S, stem 48, 96: 50,261,992 parameters."""
    sizes = {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)}
    return _create(_convnext, "convnext_small_cvst", pretrained, options, **sizes)


@register_model
def convnext_base_cvst(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """ConvNeXt-B, stem 64, 96, 128: 88,753,416 parameters."""
    sizes = {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)}
    return _create(_convnext, "convnext_base_cvst", pretrained, options, **sizes)


@register_model
def convnext_large_cvst(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """ConvNeXt-L, stem 96, 144, 192: 198,134,680 parameters."""
    sizes = {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)}
    return _create(_convnext, "convnext_large_cvst", pretrained, options, **sizes)


@register_model
def convnext_iso_cvst(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """Isotropic ConvNeXt, 18 blocks of width `dim` (384) at 1/16 of the image's size."""
    return _create(_isotropic_convnext, "convnext_iso_cvst", pretrained, options, dim=384, depth=18)


@register_model
def vit_small_cvst(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """DeiT-S/16 with a stem: 22,777,576 parameters; the only one trained on normalised images."""
    return _create(_vision_transformer, "vit_small_cvst", pretrained, options, embed_dim=384, num_heads=6)


@register_model
def vit_medium_cvst(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """DeiT III-M/16 with a stem: layer scale, and no position for the class token."""
    sizes = {"embed_dim": 512, "num_heads": 8, "no_embed_class": True, "init_values": 1e-6}
    return _create(_vision_transformer, "vit_medium_cvst", pretrained, options, **sizes)


@register_model
def vit_base_cvst(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-B/16 with a stem: 87,147,112 parameters."""
    return _create(_vision_transformer, "vit_base_cvst", pretrained, options, embed_dim=768, num_heads=12)
