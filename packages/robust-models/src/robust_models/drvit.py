"""Discrete representation ViT (DrViT): each patch is also told by the nearest code of a VQGAN."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer, build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from robust_models.image_size import check_images, checked_size
from robust_models.registry import get_entry
from robust_models.vector_quantizer import VectorQuantizer
from robust_models.verify import verify
from robust_models.vqgan_layers import Encoder
from robust_models.weights import load_weights

PATCH = 16
CODE_WIDTH = 256
_VQ_NAMES = {"encoder.": "vq_encoder.", "quant_conv.": "vq_quant_conv.", "quantize.": "quantize."}


class DrViT(VisionTransformer):
    """A ViT whose token of a patch is a linear embedding beside the code of the patch in a frozen VQGAN encoder.

    Mao et al., "Discrete Representations Strengthen Vision Transformer Robustness", ICLR 2022, arXiv:2111.10493. The
    codebook is trained with the transformer; the encoder and its 1 x 1 convolution never are, and stay in eval mode.
    Images come in [-1, 1], which is what the encoder was trained on. Other than in the published code, nothing is
    downloaded: the encoder starts at random until weights are loaded, of the whole model or as `vq_weights`.

    The gradient by the images goes through the linear half of the tokens only, because the choice of a code has none.
    An attack by such gradients overrates the robustness; it is warned of, and `straight_through=True` is the remedy. It
    can be switched later too: `model.quantize.straight_through = True`.

    Args:
        img_size: height and width in pixels, one number or both, multiples of 16.
        in_chans: channels of the images.
        num_classes: number of logits; 0 returns pooled features.
        embed_dim: width of a token, more than the 256 of a code, and a multiple of `num_heads`.
        depth: number of blocks.
        num_heads: heads of each block.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1).
        straight_through: let gradients pass the codebook as if encoder and code agreed, and the encoder be part of the
            gradient by the images.
        vq_weights: a file of the VQGAN f16 with 1,024 codes (`encoder.*, quant_conv.*, quantize.*`) or of a DrViT; or
            "vqgan_imagenet_f16_1024", once `robust-models download` has brought it into the cache.

    Raises:
        ValueError: for another `img_size` or `embed_dim`, or a file that does not hold the VQGAN.
        FileNotFoundError: if there is no such file.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        straight_through: bool = False,
        vq_weights: str | os.PathLike[str] | None = None,
    ) -> None:
        size = checked_size(img_size, PATCH)
        if embed_dim <= CODE_WIDTH or embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be more than {CODE_WIDTH}, the width of a code, and a multiple of num_heads, got "
                f"embed_dim={embed_dim}, num_heads={num_heads}"
            )
        super().__init__(
            img_size=size,
            patch_size=PATCH,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool="avg",
            fc_norm=False,  # `norm` holds the one layer norm, as in the published files; it comes after pooling
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.patch_embed = PatchEmbed(size, PATCH, in_chans, embed_dim - CODE_WIDTH)
        self.vq_encoder = Encoder((128, 128, 256, 256, 512), CODE_WIDTH, in_chans).requires_grad_(False)
        self.vq_quant_conv = nn.Conv2d(CODE_WIDTH, CODE_WIDTH, 1).requires_grad_(False)
        self.quantize = VectorQuantizer(1024, CODE_WIDTH, straight_through=straight_through)
        if vq_weights is not None:
            self._load_vq(_vq_file(vq_weights))

    # The methods below take no masks of attention, other than those of the class above.
    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Classify `images` (N, C, H, W) in [-1, 1]; logits (N, num_classes) come back.

        Raises:
            ValueError: if the images have another size than the network was built for.
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Return the tokens (N, 1 + H / 16 * W / 16, embed_dim) after the last block, the class token first.

        Raises:
            ValueError: if the images have another size than the network was built for.
        """
        x = self._embed(images)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the tokens of `forward_features` into logits, or with `pre_logits` into normed means over patches."""
        x = self.head_drop(self.norm(self.pool(features)))
        return x if pre_logits else self.head(x)  # type: ignore[no-any-return]

    def forward_intermediates(  # type: ignore[override]
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return (output of `forward_features`, list of the maps of patch tokens behind each block).

        Args:
            images: (N, C, H, W).
            indices: which of the blocks; a number n means the last n, None all.
            norm: apply the last layer norm to each token.
            stop_early: leave out the blocks after the last one that was asked for.
            output_fmt: "NCHW", or "NLC" for tokens in a row.
            intermediates_only: return the list alone.

        Raises:
            ValueError: for another `output_fmt`.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        take, last = feature_take_indices(len(self.blocks), indices)
        x, maps = self._embed(images), []
        for index, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            x = checkpoint_seq([block], x) if self.grad_checkpointing else block(x)
            if index in take:
                patches = (self.norm(x) if norm else x)[:, 1:]
                maps.append(self._as_map(patches) if output_fmt == "NCHW" else patches)
        return maps if intermediates_only else (x, maps)

    def code_indices(self, images: Tensor) -> Tensor:
        """Return the codes (N, H / 16, W / 16) of `images` (N, C, H, W) in [-1, 1], numbers from 0 to 1023."""
        return self.quantize.indices(self._latents(images))

    def train(self, mode: bool = True) -> "DrViT":
        """Set the mode of everything but the frozen encoder, which stays in eval mode."""
        super().train(mode)
        self.vq_encoder.eval()
        self.vq_quant_conv.eval()
        return self

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Take images of another size from now on: the position table is interpolated.

        Raises:
            ValueError: for an `img_size` that is no multiple of 16, or a `patch_size` other than 16.
        """
        if patch_size not in (None, PATCH, (PATCH, PATCH)):
            raise ValueError(f"patches have {PATCH} x {PATCH} pixels, as the codes do, got patch_size={patch_size}")
        super().set_input_size(img_size=None if img_size is None else checked_size(img_size, PATCH))

    def get_attention_modules(self) -> list[nn.Module]:
        """Return the attention layers of the transformer, in the order of the computation."""
        return [block.get_submodule("attn") for block in self.blocks]

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone, besides norms and biases."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002 - one level of blocks, as in timm
        """Patterns that sort parameters by depth for timm; the VQGAN counts as part of the embedding."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed|vq_|quantize",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def _embed(self, images: Tensor) -> Tensor:
        """The tokens that go into the first block."""
        check_images(images, self.patch_embed.img_size, "build it with another img_size, or call set_input_size")
        if images.requires_grad and not self.quantize.straight_through and not torch.compiler.is_compiling():
            warnings.warn(
                "the gradient by the images leaves out the codes of DrViT (gradient masking): attacks that follow it "
                "overrate the robustness; build the model with straight_through=True to evaluate it",
                stacklevel=2,
            )
        codes = self.quantize(self._latents(images)).flatten(2).transpose(1, 2)
        return self._pos_embed(torch.cat([self.patch_embed(images), codes], dim=-1))

    def _latents(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.quantize.straight_through):
            return self.vq_quant_conv(self.vq_encoder(images))  # type: ignore[no-any-return]

    def _as_map(self, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).reshape(len(tokens), -1, *self.patch_embed.grid_size)

    def _load_vq(self, file: Path) -> None:
        loaded = set(load_weights(self, file, strict=False).loaded)
        wanted = [name for name in self.state_dict() if name.startswith(tuple(_VQ_NAMES.values()))]
        if missing := [name for name in wanted if name not in loaded]:
            raise ValueError(
                f"{file} lacks {len(missing)} of the {len(wanted)} entries of the VQGAN with cells of 16 x 16 pixels "
                f"and 1,024 codes, or has them in other shapes: {', '.join(missing[:3])}, ..."
            )


def _vq_file(path_or_name: str | os.PathLike[str]) -> Path:
    """The file, or that of an entry of the zoo if it is in the cache: constructors download nothing."""
    file = Path(path_or_name)
    if file.is_file():
        return file
    name = str(path_or_name) if len(file.parts) > 1 else f"auxiliary/{path_or_name}"
    try:
        found = verify(get_entry(name))
    except ValueError as error:
        raise FileNotFoundError(f"no VQGAN weights at {file}, and {error}") from error
    if found is None:
        raise FileNotFoundError(
            f"{name} is not in the cache, and nothing is downloaded here: "
            f"`robust-models download {name} --allow-http` fetches it"
        )
    if found.problem:
        raise ValueError(found.problem)
    return found.file


def checkpoint_filter(state_dict: Mapping[str, Tensor], model: DrViT) -> dict[str, Tensor]:
    """Name the entries of a published file as `model` does.

    A file of a VQGAN gives its encoder and codebook; decoder and training loss are dropped. `fc_norm` becomes `norm`,
    and the position table of another image size is interpolated.
    """
    of_vqgan = any(name.startswith(("encoder.", "quant_conv.")) for name in state_dict)
    found: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        if of_vqgan:
            for theirs, ours in _VQ_NAMES.items():
                if name.startswith(theirs):
                    found[ours + name.removeprefix(theirs)] = value
        elif name == "pos_embed" and model.pos_embed is not None and value.shape != model.pos_embed.shape:
            found[name] = resample_abs_pos_embed(value, model.patch_embed.grid_size)
        else:
            found[f"norm.{name.removeprefix('fc_norm.')}" if name.startswith("fc_norm.") else name] = value
    return found


default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "fixed_input_size": True,
            "pool_size": None,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for name in ("drvit_small_patch16", "drvit_base_patch16", "drvit_large_patch16")
    }
)


@register_model
def drvit_small_patch16(pretrained: bool = False, **options: Any) -> DrViT:
    """Width 384, 12 blocks, 6 heads: 51,479,912 parameters."""
    return _build("drvit_small_patch16", pretrained, {"embed_dim": 384, "depth": 12, "num_heads": 6, **options})


@register_model
def drvit_base_patch16(pretrained: bool = False, **options: Any) -> DrViT:
    """Width 768, 12 blocks, 12 heads: 115,996,904 parameters."""
    return _build("drvit_base_patch16", pretrained, {"embed_dim": 768, "depth": 12, "num_heads": 12, **options})


@register_model
def drvit_large_patch16(pretrained: bool = False, **options: Any) -> DrViT:
    """Width 1024, 24 blocks, 16 heads: 333,755,880 parameters."""
    return _build("drvit_large_patch16", pretrained, {"embed_dim": 1024, "depth": 24, "num_heads": 16, **options})


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> DrViT:
    network: DrViT = build_model_with_cfg(
        DrViT,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **options,
    )
    return network
