"""ResNets with smooth activations, and ResNet-50 for small images."""

from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from robust_models.built_in_normalize import CIFAR10_MEAN, CIFAR10_STD


def _resnet_for_small_images(**options: Any) -> ResNet:
    """Build ResNet whose stem keeps the size of the image: 3 x 3 convolution with stride 1, no pooling."""
    model = ResNet(**options)
    conv = nn.Conv2d(model.in_chans, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule("conv1", conv)
    model.set_submodule("maxpool", nn.Identity())
    for info, reduction in zip(model.feature_info, (1, 1, 2, 4, 8), strict=True):
        info["reduction"] = reduction
    return model


def _config(**changes: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "fc",
        **changes,
    }


_pixels = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "crop_pct": 0.95}  # trained on pixels in [0, 1]
_cifar = {"mean": CIFAR10_MEAN, "std": CIFAR10_STD, "crop_pct": 1.0}

default_cfgs = generate_default_cfgs(
    {
        "resnet50_gelu.untrained": _config(**_pixels),
        "resnet50_silu.untrained": _config(),
        "resnet152_gelu.untrained": _config(),
        "wide_resnet50_2_gelu.untrained": _config(),
        "resnet50_32.untrained": _config(num_classes=10, input_size=(3, 32, 32), pool_size=(4, 4), **_cifar),
    }
)


def _create(name: str, pretrained: bool, options: dict[str, Any], **sizes: Any) -> ResNet:
    build = _resnet_for_small_images if name.endswith("_32") else ResNet
    settings = {"block": Bottleneck, "layers": (3, 4, 6, 3), **sizes, **options}
    return build_model_with_cfg(build, name, pretrained, **settings)


@register_model
def resnet50_gelu(pretrained: bool = False, **options: Any) -> ResNet:
    """ResNet-50 with GELU, as Debenedetti et al. (arXiv:2209.07399) compare with XCiT: 25,557,032 parameters."""
    return _create("resnet50_gelu", pretrained, options, act_layer="gelu")


@register_model
def resnet50_silu(pretrained: bool = False, **options: Any) -> ResNet:
    """ResNet-50 with SiLU, after "Smooth Adversarial Training" (arXiv:2006.14536): 25,557,032 parameters."""
    return _create("resnet50_silu", pretrained, options, act_layer="silu")


@register_model
def resnet152_gelu(pretrained: bool = False, **options: Any) -> ResNet:
    """ResNet-152 with GELU, as in ARES-Bench (arXiv:2302.14301): 60,192,808 parameters."""
    return _create("resnet152_gelu", pretrained, options, layers=(3, 8, 36, 3), act_layer="gelu")


@register_model
def wide_resnet50_2_gelu(pretrained: bool = False, **options: Any) -> ResNet:
    """Wide ResNet-50-2 with GELU, as in ARES-Bench (arXiv:2302.14301): 68,883,240 parameters."""
    return _create("wide_resnet50_2_gelu", pretrained, options, base_width=128, act_layer="gelu")


@register_model
def resnet50_32(pretrained: bool = False, **options: Any) -> ResNet:
    """ResNet-50 whose stem keeps the size of the image, for CIFAR: 23,520,842 parameters."""
    return _create("resnet50_32", pretrained, options)
