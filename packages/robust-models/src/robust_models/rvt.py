"""Robust Vision Transformer (RVT)."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from timm.data import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from robust_models.image_size import checked_size
from robust_models.layers.paas import PAASAttention, resize_mask
from robust_models.rvt_blocks import Block, ConvStem, Stage, TokenPool

PATCH = 16


class RVT(nn.Module):
    """A vision transformer of parts that were found to be robust: convolutions, no position embedding, a pooled head.

    Mao et al., "Towards Robust Vision Transformer", CVPR 2022, arXiv:2105.07926. With `paas_blocks` it is the starred
    model of the paper. Other than in the published code, the masks of attention are initialised, other image sizes
    work, and a batch of one image gives logits (1, num_classes).

    Args:
        img_size: height and width in pixels, one number or both, multiples of 16. Masks are tied to it; without them
            the network takes images of any such size.
        in_chans: channels of the images.
        num_classes: number of logits; 0 returns pooled features.
        depths: blocks of each stage; between stages the grid of tokens is halved.
        num_heads: heads of each stage, a multiple of those of the stage before.
        head_dim: width of a head, the same in all stages.
        paas_blocks: how many of the first blocks of the first stage scale their attention by position.
        conv_ffn: whether the feed-forward layers see neighbouring tokens; those of the base model do not.
        drop_rate: dropout in the feed-forward layers, in [0, 1).
        drop_path_rate: stochastic depth, in [0, 1); block j of n has the rate drop_path_rate * j / n.

    Raises:
        ValueError: if `img_size` is no multiple of 16, or the stages do not fit each other.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["grid_size"]  # TorchScript compiles properties, but for these

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (12,),
        num_heads: Sequence[int] = (6,),
        head_dim: int = 64,
        paas_blocks: int = 0,
        conv_ffn: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads) or not 0 <= paas_blocks <= depths[0]:
            raise ValueError(
                "each stage needs a depth and a number of heads, and masks fit into the first one only, got "
                f"depths={depths}, num_heads={num_heads}, paas_blocks={paas_blocks}"
            )
        self.img_size = checked_size(img_size, PATCH)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.paas_blocks = paas_blocks
        widths = [heads * head_dim for heads in num_heads]
        self.num_features = self.head_hidden_size = widths[-1]
        self.patch_embed = ConvStem(in_chans, widths[0])
        self.transformers = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        for stage, (depth, heads, width) in enumerate(zip(depths, num_heads, widths, strict=True)):
            before = sum(depths[:stage])
            self.transformers.append(
                Stage(
                    Block(
                        width,
                        heads,
                        n_tokens=math.prod(self.grid_size),
                        mask=before + index < paas_blocks,
                        conv_ffn=conv_ffn,
                        drop=drop_rate,
                        drop_path=drop_path_rate * (before + index) / sum(depths),
                    )
                    for index in range(depth)
                )
            )
            self.feature_info += [
                {"num_chs": width, "reduction": PATCH * 2**stage, "module": f"transformers.{stage}.blocks.{index}"}
                for index in range(depth)
            ]
        self.pools = nn.ModuleList(TokenPool(*pair) for pair in itertools.pairwise(widths))
        self.norm: nn.Module = nn.LayerNorm(self.num_features, eps=1e-6)
        self.head = self._classifier(num_classes)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Height and width of the first grid of tokens."""
        return self.img_size[0] // PATCH, self.img_size[1] // PATCH

    def forward(self, images: Tensor) -> Tensor:
        """Classify `images` (N, C, H, W); logits (N, num_classes) come back."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the map (N, num_features, h, w) behind the last block.

        Raises:
            ValueError: if the images have another size than the masks, or sides that are no multiples of 16.
        """
        self._check(images)
        x: Tensor = self.patch_embed(images)
        for stage, pool in zip(self.transformers, self.pools):  # noqa: B905 - one pool fewer than stages
            x = pool(stage(x))
        return self.transformers[-1](x)  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the map of `forward_features` into logits, or with `pre_logits` into pooled features."""
        pooled = self.norm(features.mean(dim=(2, 3)))
        output: Tensor = pooled if pre_logits else self.head(pooled)
        return output

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return (output of `forward_features`, list of maps (N, dim, h, w) behind the blocks).

        Args:
            images: (N, C, H, W).
            indices: which blocks; a number n means the last n, None all.
            norm: must be False: the last norm is for pooled features.
            stop_early: leave out the blocks after the last map that was asked for.
            output_fmt: only "NCHW".
            intermediates_only: return the list alone.

        Raises:
            ValueError: for `norm`, another `output_fmt` or images that do not fit.
        """
        if norm or output_fmt != "NCHW":
            raise ValueError(
                f"RVT gives maps as NCHW and normalises after pooling, got output_fmt={output_fmt!r}, norm={norm}"
            )
        self._check(images)
        take, last = feature_take_indices(self._depth(), indices)
        maps = []
        for index, x in enumerate(self._maps(images)):
            if index in take:
                maps.append(x)
            if stop_early and index == last:
                break
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the maps `indices` do not need, and return their numbers."""
        take, last = feature_take_indices(self._depth(), indices)
        stages, left = [], last + 1
        for stage in self._stages():
            if left:
                stage.blocks = stage.blocks[:left]
                left -= len(stage.blocks)
                stages.append(stage)
        self.transformers, self.pools = nn.ModuleList(stages), self.pools[: len(stages) - 1]
        width = self.feature_info[last]["num_chs"]
        cut = width != self.num_features  # norm and head are as wide as the last stage was
        self.num_features = self.head_hidden_size = width
        if prune_norm or cut:
            self.norm = nn.Identity()
        if prune_head or cut:
            self.num_classes, self.head = 0, nn.Identity()
        return take

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one; 0 classes leave pooled features.

        Raises:
            ValueError: if `global_pool` is given and not "avg".
        """
        if global_pool not in (None, "avg"):
            raise ValueError(f"RVT always averages over the tokens, got global_pool={global_pool!r}")
        self.num_classes = num_classes
        self.head = self._classifier(num_classes).to(next(self.parameters()))

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Resize the masks for images of `img_size`, one number or both, multiples of 16.

        Raises:
            ValueError: if `img_size` is no multiple of 16.
        """
        old = self.grid_size
        self.img_size = checked_size(img_size, PATCH)
        for layer in self.get_attention_modules():
            if layer.att_mask is not None:
                mask = resize_mask(layer.att_mask.detach(), old, self.grid_size)
                layer.att_mask = nn.Parameter(mask, requires_grad=layer.att_mask.requires_grad)
        update_model_input_size(self, self.img_size)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks once more in the backward pass instead of keeping what is inside them."""
        for stage in self._stages():
            stage.grad_checkpointing = enable

    def get_attention_modules(self) -> list[PAASAttention]:
        """Return the attention layers in the order of the computation."""
        return [module for module in self.modules() if isinstance(module, PAASAttention)]

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone: the masks."""
        return {name for name, _ in self.named_parameters() if name.endswith(".att_mask")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth for timm; `coarse` takes a stage and the pooling behind it as one."""
        blocks = [(r"^transformers\.(\d+)\.blocks\.(\d+)", None), (r"^pools\.(\d+)", (math.inf,))]
        return {"stem": r"^patch_embed", "blocks": r"^(?:transformers|pools)\.(\d+)" if coarse else blocks}

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def _stages(self) -> list[Stage]:
        return [stage for stage in self.transformers if isinstance(stage, Stage)]

    def _depth(self) -> int:
        return sum(len(stage.blocks) for stage in self._stages())

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the map behind every block."""
        x = self.patch_embed(images)
        for index, stage in enumerate(self._stages()):
            x = self.pools[index - 1](x) if index else x
            for block in stage.blocks:
                x = stage.step(block, x)
                yield x

    def _check(self, images: Tensor, patch: int = PATCH) -> None:  # an argument: TorchScript knows no global names
        height, width = images.shape[-2:]
        if self.paas_blocks and (height != self.img_size[0] or width != self.img_size[1]):
            raise ValueError(
                f"the masks of this network are for images of {self.img_size[0]} x {self.img_size[1]} pixels, got "
                f"{height} x {width}: resize the images, or the masks by set_input_size"
            )
        if height % patch != 0 or width % patch != 0:
            raise ValueError(
                f"this network was built for images of {self.img_size[0]} x {self.img_size[1]} pixels and takes other "
                f"multiples of {patch}, got {height} x {width}: resize them"
            )


def checkpoint_filter(state_dict: Mapping[str, Any], model: RVT) -> dict[str, Any]:
    """Make a published file fit `model`: take it out of "model", and resize its masks where the sizes differ.

    Args:
        state_dict: what the file holds; it is left as it is.
        model: an `RVT`.

    Returns:
        A new state dict with the keys of the file.

    Raises:
        ValueError: if a mask to be resized is not of a square grid.
    """
    weights = dict(state_dict.get("model", state_dict))
    for name, target in model.state_dict().items():
        mask = weights.get(name)
        if not name.endswith(".att_mask") or mask is None or mask.shape == target.shape:
            continue
        side = math.isqrt(mask.shape[-1])
        if side**2 != mask.shape[-1]:
            raise ValueError(
                f"{name} of the file is for {mask.shape[-1]} tokens, which is no square grid, and the model has "
                f"{target.shape[-1]}: build the model for the size of the file and call set_input_size"
            )
        weights[name] = resize_mask(mask, (side, side), model.grid_size)
    return weights


def _config(tied: bool) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "fixed_input_size": tied,
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_INCEPTION_MEAN,
        "std": IMAGENET_INCEPTION_STD,
        "first_conv": "patch_embed.proj.0",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {
        f"rvt_{size}{plus}.untrained": _config(tied=bool(plus))
        for size in ("tiny", "small", "base")
        for plus in ("", "_plus")
    }
)


def _build(name: str, pretrained: bool, options: dict[str, Any], **architecture: Any) -> RVT:
    return build_model_with_cfg(
        RVT,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **{**architecture, **options},
    )


_TINY = {"depths": (10, 2), "num_heads": (6, 12), "head_dim": 32}
_SMALL = {"depths": (12,), "num_heads": (6,), "head_dim": 64}
_BASE = {"depths": (12,), "num_heads": (12,), "head_dim": 64, "conv_ffn": False}


@register_model
def rvt_tiny(pretrained: bool = False, **options: Any) -> RVT:
    """RVT-Ti: 192 and 384 wide, 10 and 2 blocks, 8,646,376 parameters."""
    return _build("rvt_tiny", pretrained, options, **_TINY)


@register_model
def rvt_small(pretrained: bool = False, **options: Any) -> RVT:
    """RVT-S: 384 wide, 12 blocks, 22,148,392 parameters."""
    return _build("rvt_small", pretrained, options, **_SMALL)


@register_model
def rvt_base(pretrained: bool = False, **options: Any) -> RVT:
    """RVT-B: 768 wide, 12 blocks, 86,223,784 parameters."""
    return _build("rvt_base", pretrained, options, **_BASE)


@register_model
def rvt_tiny_plus(pretrained: bool = False, **options: Any) -> RVT:
    """RVT-Ti*: RVT-Ti with masks in its first 10 blocks, 10,951,336 parameters."""
    return _build("rvt_tiny_plus", pretrained, options, **_TINY, paas_blocks=10)


@register_model
def rvt_small_plus(pretrained: bool = False, **options: Any) -> RVT:
    """RVT-S*: RVT-S with masks in its first 5 blocks, 23,300,872 parameters."""
    return _build("rvt_small_plus", pretrained, options, **_SMALL, paas_blocks=5)


@register_model
def rvt_base_plus(pretrained: bool = False, **options: Any) -> RVT:
    """RVT-B*: RVT-B with masks in its first 5 blocks, 88,528,744 parameters."""
    return _build("rvt_base_plus", pretrained, options, **_BASE, paas_blocks=5)
