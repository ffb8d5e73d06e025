"""Fully attentional networks (FAN)."""

from collections.abc import Mapping
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._input import update_model_input_size
from timm.models.cait import ClassAttn
from timm.models.xcit import Xcit
from torch import nn

from robust_models.fan_blocks import FANBlock, TokenAttention
from robust_models.fan_stem import PATCH, ConvStem, HybridStem
from robust_models.image_size import checked_size


class FAN(Xcit):
    """A vision transformer whose feed-forward layers are attention between channels.

    Zhou et al., "Understanding the Robustness in Vision Transformers", ICML 2022, arXiv:2204.12451, written from the
    paper. Stem, position code, class attention and head are those of XCiT (El-Nouby et al., NeurIPS 2021,
    arXiv:2106.09681), whose timm class this one extends. Other than in the published code, the layer norm of the hybrid
    stem is the ordinary one for every memory layout.

    Args:
        img_size: nominal height and width in pixels, one number or both, multiples of 16; nothing is tied to it, the
            network takes images of any such size.
        in_chans: channels of the images.
        num_classes: number of logits; 0 returns pooled features.
        global_pool: "token" classifies the class token, as published, "avg" the mean of the others, "" every token.
        embed_dim: width of the tokens.
        depth: number of blocks; two blocks of class attention follow.
        num_heads: heads of every attention.
        hybrid: depths of two stages of ConvNeXt as the stem; None means the convolutions of XCiT.
        eta: start of the scales of the blocks.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth, in [0, 1), the same in every block.
        head_scale: factor on the classifier's weights at the start.

    Raises:
        ValueError: if `img_size` is no multiple of 16, `embed_dim` no multiple of `num_heads`, or there is no such
            `global_pool`.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 8,
        hybrid: tuple[int, int] | None = None,
        eta: float = 1.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        head_scale: float = 1.0,
    ) -> None:
        if embed_dim % num_heads:
            raise ValueError(f"the width must be a multiple of the heads, got {embed_dim} and {num_heads} heads")
        super().__init__(
            img_size=checked_size(img_size, PATCH),
            patch_size=PATCH,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=_checked_pool(global_pool),
            embed_dim=embed_dim,
            depth=0,
            num_heads=num_heads,
            eta=eta,
            drop_rate=drop_rate,
            tokens_norm=True,
        )
        stem = HybridStem(in_chans, embed_dim, hybrid) if hybrid else ConvStem(in_chans, embed_dim)
        self.add_module("patch_embed", stem)
        self.blocks = nn.ModuleList(FANBlock(embed_dim, num_heads, eta, drop_path_rate) for _ in range(depth))
        self.feature_info = [
            {"num_chs": embed_dim, "reduction": PATCH, "module": f"blocks.{index}"} for index in range(depth)
        ]
        if isinstance(self.head, nn.Linear):
            self.head.weight.data *= head_scale

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one, 0 classes for none, and change the pooling if `global_pool` is given.

        Raises:
            ValueError: for a `global_pool` that does not exist.
        """
        super().reset_classifier(num_classes, None if global_pool is None else _checked_pool(global_pool))

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Note another nominal size, one number or both, multiples of 16; no weight depends on it.

        Raises:
            ValueError: if `img_size` is no multiple of 16.
        """
        update_model_input_size(self, checked_size(img_size, PATCH))

    def get_attention_modules(self) -> list[nn.Module]:
        """Return the layers of attention between tokens, class attention last, in the order of the computation."""
        return [module for module in self.modules() if isinstance(module, TokenAttention | ClassAttn)]

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone: class token and position code."""
        return {name for name, _ in self.named_parameters() if name.startswith(("cls_token", "pos_embed."))}


def checkpoint_filter(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Make a published file fit `model`: take it out of "state_dict", and split a fused class attention.

    Args:
        state_dict: what the file holds; it is left as it is. Old files have `attn.qkv` (3 D, D) in the class blocks
            where the model has `q`, `k` and `v`.
        model: a `FAN`.

    Returns:
        A new state dict.
    """
    wanted = model.state_dict()
    weights: dict[str, Any] = {}
    for name, value in state_dict.get("state_dict", state_dict).items():
        before, fused, leaf = name.rpartition(".qkv.")
        if fused and f"{before}.q.{leaf}" in wanted:
            weights |= {f"{before}.{part}.{leaf}": rows for part, rows in zip("qkv", value.chunk(3), strict=True)}
        else:
            weights[name] = value
    return weights


def _checked_pool(global_pool: str) -> str:
    if global_pool not in ("token", "avg", ""):
        raise ValueError(f'global_pool must be "token", "avg" or "", got {global_pool!r}')
    return global_pool


_SIZES: dict[str, dict[str, Any]] = {
    "fan_tiny_12_p16_224": {"embed_dim": 192, "depth": 12, "num_heads": 4},
    "fan_small_12_p16_224": {"embed_dim": 384, "depth": 12, "num_heads": 8},
    "fan_base_18_p16_224": {"embed_dim": 448, "depth": 18, "num_heads": 8},
    "fan_large_24_p16_224": {"embed_dim": 480, "depth": 24, "num_heads": 10},
    "fan_tiny_8_p4_hybrid": {"embed_dim": 192, "depth": 8, "num_heads": 8, "hybrid": (3, 3)},
    # The names of the published small and large hybrid say 12 and 16 blocks, the networks have 10 and 22.
    "fan_small_12_p4_hybrid": {"embed_dim": 384, "depth": 10, "num_heads": 8, "hybrid": (3, 3)},
    "fan_base_16_p4_hybrid": {"embed_dim": 448, "depth": 16, "num_heads": 8, "hybrid": (3, 3)},
    "fan_large_16_p4_hybrid": {"embed_dim": 480, "depth": 22, "num_heads": 10, "hybrid": (3, 5), "head_scale": 0.001},
}


def _config(hybrid: bool) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.backbone.stem.0" if hybrid else "patch_embed.proj.0.0",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {f"{name}.untrained": _config("hybrid" in architecture) for name, architecture in _SIZES.items()}
)


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> FAN:
    return build_model_with_cfg(
        FAN,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **{**_SIZES[name], **options},
    )


@register_model
def fan_tiny_12_p16_224(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-T-ViT: 192 wide, 12 blocks, 7,319,920 parameters."""
    return _build("fan_tiny_12_p16_224", pretrained, options)


@register_model
def fan_small_12_p16_224(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-S-ViT: 384 wide, 12 blocks, 28,345,336 parameters."""
    return _build("fan_small_12_p16_224", pretrained, options)


@register_model
def fan_base_18_p16_224(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-B-ViT: 448 wide, 18 blocks, 54,350,320 parameters."""
    return _build("fan_base_18_p16_224", pretrained, options)


@register_model
def fan_large_24_p16_224(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-L-ViT: 480 wide, 24 blocks, 80,574,100 parameters."""
    return _build("fan_large_24_p16_224", pretrained, options)


@register_model
def fan_tiny_8_p4_hybrid(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-T-Hybrid: 192 wide, 8 blocks behind a ConvNeXt stem, 7,467,240 parameters."""
    return _build("fan_tiny_8_p4_hybrid", pretrained, options)


@register_model
def fan_small_12_p4_hybrid(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-S-Hybrid: 384 wide, 10 blocks (other than its name says) behind a ConvNeXt stem, 26,117,944 parameters."""
    return _build("fan_small_12_p4_hybrid", pretrained, options)


@register_model
def fan_base_16_p4_hybrid(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-B-Hybrid: 448 wide, 16 blocks behind a ConvNeXt stem, 50,475,048 parameters."""
    return _build("fan_base_16_p4_hybrid", pretrained, options)


@register_model
def fan_large_16_p4_hybrid(pretrained: bool = False, **options: Any) -> FAN:
    """FAN-L-Hybrid: 480 wide, 22 blocks (other than its name says) behind a ConvNeXt stem, 76,855,140 parameters."""
    return _build("fan_large_16_p4_hybrid", pretrained, options)
