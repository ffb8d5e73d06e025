"""Global filter networks: tokens are mixed by learnt filters in the frequency domain, without attention."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.drop import calculate_drop_path_rates
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.weight_init import trunc_normal_
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from robust_models.gfnet_blocks import Block, Grid, resample_filter
from robust_models.gfnet_blocks import GlobalFilter as GlobalFilter
from robust_models.image_size import check_images


class GFNet(nn.Module):
    """Classify by global filters and MLPs: the plain network of one width, or the hierarchical one of several.

    Rao et al., "Global Filter Networks for Image Classification", NeurIPS 2021, arXiv:2107.00645. With one entry in
    `dims` the names are `patch_embed` and `blocks.{block}`, with more `patch_embed.{stage}` and
    `blocks.{stage}.{block}`, as published. Each stage halves the map of the one before.

    Args:
        dims: channels of each stage.
        depths: blocks of each stage.
        patch_size: of the first embedding, in pixels.
        gamma: first value of the layer scale; None means no layer scale.
        img_size: height and width in pixels, one number or both; the filters and the position table are tied to it.
        in_chans: channels of the images.
        num_classes: number of logits; 0 returns pooled features.
        global_pool: "avg" for the mean of the tokens, "" for all tokens.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1); it grows linearly from 0.

    Raises:
        ValueError: if `dims` and `depths` differ in length, or `img_size` is too small for the last stage.
    """

    def __init__(
        self,
        dims: Sequence[int] = (384,),
        depths: Sequence[int] = (19,),
        patch_size: int = 16,
        gamma: float | None = None,
        img_size: int | Grid = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(dims) != len(depths):
            raise ValueError(f"dims and depths name the stages: give as many of each, got {dims} and {depths}")
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.num_features = self.head_hidden_size = dims[-1]
        self.hierarchical = len(dims) > 1
        self.grad_checkpointing = False
        sides = _sides(img_size, patch_size, len(dims))
        rates: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        embeds, stages = [], []
        for stage, (dim, before) in enumerate(zip(dims, (in_chans, *dims), strict=False)):
            embeds.append(PatchEmbed(sides[stage], 2 if stage else patch_size, before, dim))
            stages.append(nn.Sequential(*(Block(dim, sides[stage + 1], rate, gamma) for rate in rates[stage])))
        self.patch_embed: Any = nn.ModuleList(embeds) if self.hierarchical else embeds[0]
        self.pos_embed = nn.Parameter(torch.zeros(1, embeds[0].num_patches, dims[0]))
        self.blocks = nn.Sequential(*stages) if self.hierarchical else stages[0]
        self.norm: nn.Module = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self._classifier(num_classes)
        self.feature_info = [
            {"num_chs": dim, "reduction": patch_size * 2**stage, "module": f"blocks.{stage}"}
            for stage, dim in enumerate(dims)
        ]
        if not self.hierarchical:
            self.feature_info = [{**self.feature_info[0], "module": f"blocks.{index}"} for index in range(depths[0])]
        trunc_normal_(self.pos_embed, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _classifier(self, num_classes: int) -> nn.Module:
        if num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.num_features, num_classes).to(self.pos_embed)
        trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head

    @property
    def _embeds(self) -> list[Any]:
        return list(self.patch_embed) if self.hierarchical else [self.patch_embed]

    def forward(self, images: Tensor) -> Tensor:
        """Classify `images` (N, C, H, W); logits (N, num_classes) come back."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the normalised tokens (N, tokens, dim) of the last stage.

        Raises:
            ValueError: if the images have another size than the network was built for.
        """
        x = images
        for index in range(len(self.blocks)):
            x = self._step(index, x)
        normed: Tensor = self.norm(x)
        return normed

    def _step(self, index: int, x: Tensor) -> Tensor:
        """Run block `index`, or stage `index` of a hierarchical network, after the embedding in front of it."""
        if index == 0:
            check_images(x, self._embeds[0].img_size)
            x = self._embeds[0](x) + self.pos_embed
        elif self.hierarchical:
            x = self._embeds[index](self._as_map(index - 1, x))
        layer = self.blocks[index]
        if self.grad_checkpointing:
            x = checkpoint_seq(layer if self.hierarchical else [layer], x)
        else:
            x = layer(x)
        return x

    def _as_map(self, index: int, tokens: Tensor) -> Tensor:
        grid = self._embeds[index if self.hierarchical else 0].grid_size
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the tokens of `forward_features` into logits, or with `pre_logits` into pooled features."""
        x: Tensor = self.head_drop(features.mean(1) if self.global_pool else features)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return (output of `forward_features`, list of maps after each block, or stage of a hierarchical network).

        Args:
            images: (N, C, H, W).
            indices: which of the maps; a number n means the last n, None all.
            norm: apply the last norm to the maps; the plain network only.
            stop_early: leave out the blocks after the last map that was asked for.
            output_fmt: "NCHW" for maps, "NLC" for tokens.
            intermediates_only: return the list alone.

        Raises:
            ValueError: for another `output_fmt`, `norm` on a hierarchical network, or images of another size.
        """
        if output_fmt not in ("NCHW", "NLC") or (norm and self.hierarchical):
            raise ValueError(
                f"maps come as NCHW or NLC, and norm=True fits the plain network only, whose blocks are equally wide: "
                f"got output_fmt={output_fmt!r}, norm={norm}"
            )
        take, last = feature_take_indices(len(self.blocks), indices)
        x, maps = images, []
        for index in range(last + 1 if stop_early else len(self.blocks)):
            x = self._step(index, x)
            if index in take:
                tokens = self.norm(x) if norm else x
                maps.append(self._as_map(index, tokens) if output_fmt == "NCHW" else tokens)
        return maps if intermediates_only else (self.norm(x) if x.shape[-1] == self.num_features else x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the maps `indices` do not need, and return their numbers."""
        take, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if self.hierarchical:
            self.patch_embed = self.patch_embed[: last + 1]
        width = self.feature_info[last]["num_chs"]
        cut = width != self.num_features  # norm and head are as wide as the last stage was
        if prune_norm or cut:
            self.norm = nn.Identity()
        self.num_features = self.head_hidden_size = width
        if prune_head or cut:
            self.num_classes, self.global_pool, self.head = 0, "", nn.Identity()
        return take

    def set_input_size(self, img_size: int | Grid) -> None:
        """Take images of another size from now on: filters and position table are interpolated.

        Raises:
            ValueError: if `img_size` is too small for the last stage.
        """
        embeds = self._embeds
        sides, old = _sides(img_size, embeds[0].patch_size[0], len(embeds)), embeds[0].grid_size
        for stage, embed in enumerate(embeds):
            embed.set_input_size(sides[stage])
            for module in (self.blocks[stage] if self.hierarchical else self.blocks).modules():
                if isinstance(module, GlobalFilter):
                    module.set_grid(sides[stage + 1])
        table = _resample_positions(self.pos_embed.detach(), old, sides[1])
        self.pos_embed = nn.Parameter(table, requires_grad=self.pos_embed.requires_grad)
        update_model_input_size(self, sides[0])

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one, 0 classes for none, and change the pooling if `global_pool` is given.

        Raises:
            ValueError: for a `global_pool` other than "avg" and "".
        """
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise ValueError(f'GFNet pools tokens by "avg" or not at all (""), got global_pool={global_pool!r}')
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = self._classifier(num_classes).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, to save memory."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone."""
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth for timm; `coarse` takes a stage as one."""
        last = (r"^norm", (99999,))
        if not self.hierarchical:
            return {"stem": r"^pos_embed|^patch_embed", "blocks": [(r"^blocks\.(\d+)", None), last]}
        stages = [(r"^(?:blocks|patch_embed)\.(\d+)", None)]
        blocks = [(r"^patch_embed\.(\d+)", (0,)), (r"^blocks\.(\d+)\.(\d+)", None)]
        return {"stem": r"^pos_embed|^patch_embed\.0", "blocks": [*(stages if coarse else blocks), last]}


def _sides(img_size: int | Grid, patch_size: int, stages: int) -> list[Grid]:
    """Heights and widths of the images and of the maps of all stages."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    sides = [(height, width)]
    for stage in range(stages):
        step = 2 if stage else patch_size
        sides.append((sides[-1][0] // step, sides[-1][1] // step))
    if min(sides[-1]) < 1:
        least = patch_size * 2 ** (stages - 1)
        raise ValueError(f"img_size must be {least} at least, got {img_size}: a stage would be left without tokens")
    return sides


def _resample_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    resampled: Tensor = resample_abs_pos_embed(
        table, list(new), list(old), num_prefix_tokens=0, interpolation="bilinear", antialias=False
    )
    return resampled


def checkpoint_filter(state_dict: dict[str, Any], model: GFNet) -> dict[str, Tensor]:
    """Fit a published file to `model`: unwrap it, turn linear patch embeddings into convolutions, resize.

    Position table and filters of another image size are interpolated bilinearly, each on its own grid.

    Args:
        state_dict: names to tensors, also under `model` or `state_dict`.
        model: what the weights are for; it stays as it is.

    Raises:
        ValueError: if the file holds no filters or no position table.
    """
    state = state_dict.get("model", state_dict.get("state_dict", state_dict))
    filters = [value for key, value in state.items() if key.endswith("complex_weight")]
    if not filters or "pos_embed" not in state:
        raise ValueError(f"not the weights of a GFNet: pos_embed or complex_weight is not in {', '.join(state)[:200]}")
    rows = len(filters[0])
    columns = state["pos_embed"].shape[1] // rows  # the filters alone leave open whether it is even
    fitted = {}
    for key, value in state.items():
        owner: Any = model.get_submodule(key.rpartition(".")[0])
        if key.startswith("patch_embed") and key.endswith("weight") and value.ndim == 2:
            value = value.reshape(len(value), -1, *owner.kernel_size)
        elif key == "pos_embed":
            value = _resample_positions(value, (rows, columns), model._embeds[0].grid_size)
        elif key.endswith("complex_weight"):
            stage = int(key.split(".")[1]) if model.hierarchical else 0
            old = (rows >> stage, columns >> stage)
            value = resample_filter(value, old, owner.grid)
        fitted[key] = value
    return fitted


default_cfgs = generate_default_cfgs(
    {
        f"gfnet_{size}.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "fixed_input_size": True,
            "pool_size": None,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.0.proj" if size.startswith("h_") else "patch_embed.proj",
            "classifier": "head",
        }
        for size in ("tiny", "xs", "small", "base", "h_tiny", "h_ti", "h_small", "h_base")
    }
)


def _create(name: str, pretrained: bool, options: dict[str, Any], **sizes: Any) -> GFNet:
    chosen = {"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"}
    settings = {**sizes, **options}
    return build_model_with_cfg(
        GFNet, name, pretrained, pretrained_filter_fn=checkpoint_filter, feature_cfg=chosen, **settings
    )


def _create_hierarchical(
    name: str, pretrained: bool, options: dict[str, Any], width: int, middle: int, gamma: float, rate: float
) -> GFNet:
    return _create(
        name,
        pretrained,
        options,
        dims=(width, 2 * width, 4 * width, 8 * width),
        depths=(3, 3, middle, 3),
        patch_size=4,
        gamma=gamma,
        drop_path_rate=rate,
    )


_H_TINY: Any = {"width": 64, "middle": 10, "gamma": 1e-3, "rate": 0.1}


@register_model
def gfnet_tiny(pretrained: bool = False, **options: Any) -> GFNet:
    """12 blocks of 256: 7,511,784 parameters."""
    return _create("gfnet_tiny", pretrained, options, dims=(256,), depths=(12,))


@register_model
def gfnet_xs(pretrained: bool = False, **options: Any) -> GFNet:
    """12 blocks of 384: 15,985,768 parameters."""
    return _create("gfnet_xs", pretrained, options, dims=(384,), depths=(12,))


@register_model
def gfnet_small(pretrained: bool = False, **options: Any) -> GFNet:
    """19 blocks of 384: 24,869,608 parameters."""
    return _create("gfnet_small", pretrained, options, dims=(384,), depths=(19,), drop_path_rate=0.15)


@register_model
def gfnet_base(pretrained: bool = False, **options: Any) -> GFNet:
    """19 blocks of 512: 43,120,616 parameters."""
    return _create("gfnet_base", pretrained, options, dims=(512,), depths=(19,), drop_path_rate=0.25)


@register_model
def gfnet_h_tiny(pretrained: bool = False, **options: Any) -> GFNet:
    """Hierarchical, 64 to 512 wide: 15,085,096 parameters."""
    return _create_hierarchical("gfnet_h_tiny", pretrained, options, **_H_TINY)


@register_model
def gfnet_h_ti(pretrained: bool = False, **options: Any) -> GFNet:
    """`gfnet_h_tiny` under the name of its authors' code."""
    return _create_hierarchical("gfnet_h_ti", pretrained, options, **_H_TINY)


@register_model
def gfnet_h_small(pretrained: bool = False, **options: Any) -> GFNet:
    """Hierarchical, 96 to 768 wide: 32,162,632 parameters."""
    return _create_hierarchical("gfnet_h_small", pretrained, options, width=96, middle=10, gamma=1e-5, rate=0.2)


@register_model
def gfnet_h_base(pretrained: bool = False, **options: Any) -> GFNet:
    """Hierarchical, 96 to 768 wide, 27 blocks in the third stage: 53,744,200 parameters."""
    return _create_hierarchical("gfnet_h_base", pretrained, options, width=96, middle=27, gamma=1e-6, rate=0.4)
