"""Vision transformers as masked autoencoders are fine-tuned: the mean of the patch tokens, then a norm."""

import logging
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

_logger = logging.getLogger(__name__)


def checkpoint_filter(state_dict: dict[str, Any], model: VisionTransformer) -> dict[str, Tensor]:
    """Fit a file of the MAE authors, fine-tuned or pre-trained, to `model`; the position table is resized.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv:2111.06377. A pre-trained file ends
    in `norm`, which acts on each token, where the fine-tuned model has `fc_norm`, which acts on their mean. One does
    not stand for the other, so `norm` is left out with the decoder, and `fc_norm` and `head` are missing from what
    comes back: both start fresh, as in the paper's fine-tuning. The log says so.

    Args:
        state_dict: names to tensors, also under `model`.
        model: what the weights are for; it stays as it is.
    """
    state = state_dict.get("model", state_dict)
    foreign = ["decoder_", "mask_token"]
    if isinstance(model.norm, nn.Identity):
        foreign.append("norm.")
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(foreign))}
    if dropped := sorted(state.keys() - kept.keys()):
        fresh = sorted(model.state_dict().keys() - kept.keys())
        _logger.warning("pre-trained file: left out %s; not in the file: %s", ", ".join(dropped), ", ".join(fresh))
    fitted: dict[str, Tensor] = checkpoint_filter_fn(kept, model)
    return fitted


def _vision_transformer(**options: Any) -> VisionTransformer:
    """Build timm's transformer with `fc_norm` behind `head`, the order of the published files and their optimisers."""
    model = VisionTransformer(**options)
    model._modules["fc_norm"] = model._modules.pop("fc_norm")
    return model


default_cfgs = generate_default_cfgs(
    {
        f"mae_vit_{size}.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "fixed_input_size": True,
            "pool_size": None,
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for size in ("base_patch16", "large_patch16", "huge_patch14")
    }
)


def _create(name: str, pretrained: bool, options: dict[str, Any], **sizes: Any) -> VisionTransformer:
    chosen = {"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"}
    settings = {"global_pool": "avg", **sizes, **options}
    return build_model_with_cfg(
        _vision_transformer, name, pretrained, pretrained_filter_fn=checkpoint_filter, feature_cfg=chosen, **settings
    )


@register_model
def mae_vit_base_patch16(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-B/16: 86,567,656 parameters."""
    sizes = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
    return _create("mae_vit_base_patch16", pretrained, options, **sizes)


@register_model
def mae_vit_large_patch16(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-L/16: 304,326,632 parameters."""
    sizes = {"patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16}
    return _create("mae_vit_large_patch16", pretrained, options, **sizes)


@register_model
def mae_vit_huge_patch14(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-H/14: 632,045,800 parameters."""
    sizes = {"patch_size": 14, "embed_dim": 1280, "depth": 32, "num_heads": 16}
    return _create("mae_vit_huge_patch14", pretrained, options, **sizes)
