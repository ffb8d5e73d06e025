"""WaveCNet: residual networks that halve their maps by wavelets instead of strides and max-pooling."""

import copy
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from robust_models.layers.conversion import find_layers, like_tensors_of, record, replace_layers, take_place
from robust_models.layers.wavelet import LowPass


def convert_wavelet(
    model: nn.Module,
    wavelet: str = "haar",
    *,
    shortcut: bool = False,
    include: str | None = None,
    exclude: str | None = None,
) -> nn.Module:
    """Make the ResNets of timm inside `model` halve their maps by the low band of a wavelet transform.

    Li et al., "Wavelet Integrated CNNs for Noise-Robust Image Classification", CVPR 2020, arXiv:2005.03337, section
    3.3. The low band replaces the stem's max-pooling; in each block with stride 2 the strided convolution gets stride 1
    and the next one receives the low band of its activations. Blur-pooling in these places goes. No weight is touched,
    so the outputs change: the network has to be trained. Odd sizes are rounded up, where the published code fails.

    Keys stay, but for the convolution that receives the low band: `conv3.weight` is now `conv3.1.weight` (in basic
    blocks `conv2.1.weight`), and with `shortcut` `downsample.0`, `.1` become `downsample.1`, `.2`.

    Args:
        model: a ResNet of timm (ResNeXt, wide, SE and -D variants are), or a module with some inside; it is changed.
        wavelet: a name of PyWavelets; see `robust_models.layers.wavelet_filters.filter_bank`.
        shortcut: give shortcuts the low band too, instead of their stride or average pooling.
        include: regular expression, searched for in the names of stem pools and blocks ("maxpool", "layer2.0"); None
            takes all.
        exclude: regular expression of the names to leave out.

    Returns:
        The same model; "wavelet" is added to `model.robust_conversions`. What was converted before stays as it is.

    Raises:
        ValueError: for an unknown wavelet, a model with nothing to convert, or one with a stem pool that has weights or
            with blocks of another kind.
    """
    low_pass = like_tensors_of(LowPass(wavelet), model)
    networks: list[Any] = [module for module in model.modules() if isinstance(module, ResNet)]
    for network in networks:
        _check(network)
    pools = {id(network.maxpool) for network in networks if not isinstance(network.maxpool, nn.Identity)}
    layers = find_layers(
        model,
        lambda module: id(module) in pools or _is_strided_block(module),
        what="stem pool or strided block of a timm ResNet",
        done=_is_done,
        include=include,
        exclude=exclude,
    )
    for name, layer in layers.items():
        if id(layer) in pools:
            replace_layers(model, {name: take_place(copy.deepcopy(low_pass), layer)})
        elif not _is_done(layer):
            _convert_block(layer, low_pass, shortcut)
    return record(model, "wavelet", layers, {"wavelet": wavelet, "shortcut": shortcut})


def _check(network: Any) -> None:
    if any(True for _ in network.maxpool.parameters()):
        raise ValueError("the stem pool of this network has weights, which the low band would throw away")
    blocks = [block for stage in (network.layer1, network.layer2, network.layer3, network.layer4) for block in stage]
    if strange := {type(block).__name__ for block in blocks if not isinstance(block, (BasicBlock, Bottleneck))}:
        raise ValueError(f"only timm's BasicBlock and Bottleneck can be converted, this network has {strange}")


def _is_strided_block(module: Any) -> bool:
    return isinstance(module, (BasicBlock, Bottleneck)) and module.stride == 2


def _is_done(module: nn.Module) -> bool:
    return isinstance(module, LowPass) or (
        _is_strided_block(module) and any(isinstance(each, LowPass) for each in module.modules())
    )


def _convert_block(block: Any, low_pass: nn.Module, shortcut: bool) -> None:
    def after_low_pass(*layers: nn.Module) -> nn.Sequential:
        together = nn.Sequential(copy.deepcopy(low_pass), *layers)
        together.training = together[0].training = block.training
        return together

    strided, following = ("conv2", "conv3") if isinstance(block, Bottleneck) else ("conv1", "conv2")
    getattr(block, strided).stride = (1, 1)
    block.aa = nn.Identity()
    setattr(block, following, after_low_pass(getattr(block, following)))
    if shortcut:
        *_pool, convolution, norm = block.downsample
        convolution.stride = (1, 1)
        block.downsample = after_low_pass(convolution, norm)


def _wave_resnet(
    block: Any,
    layers: tuple[int, ...],
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    wavelet: str = "haar",
    wavelet_shortcut: bool = False,
) -> nn.Module:
    network: nn.Module = ResNet(
        block,
        layers,
        num_classes=num_classes,
        in_chans=in_chans,
        global_pool=global_pool,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    return convert_wavelet(network, wavelet, shortcut=wavelet_shortcut)


def _build(
    name: str, pretrained: bool, block: type[nn.Module], layers: tuple[int, ...], options: dict[str, Any]
) -> nn.Module:
    network: nn.Module = build_model_with_cfg(_wave_resnet, name, pretrained, block=block, layers=layers, **options)
    return network


default_cfgs = generate_default_cfgs(
    {
        f"wave_resnet{depth}.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for depth in ("18", "34", "50", "50_db2", "101", "152")
    }
)


@register_model
def wave_resnet18(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-18 with wavelets: 11,689,512 parameters; options `wavelet="haar"` and `wavelet_shortcut=False`."""
    return _build("wave_resnet18", pretrained, BasicBlock, (2, 2, 2, 2), options)


@register_model
def wave_resnet34(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-34 with wavelets: 21,797,672 parameters; options `wavelet="haar"` and `wavelet_shortcut=False`."""
    return _build("wave_resnet34", pretrained, BasicBlock, (3, 4, 6, 3), options)


@register_model
def wave_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 with wavelets: 25,557,032 parameters; options `wavelet="haar"` and `wavelet_shortcut=False`."""
    return _build("wave_resnet50", pretrained, Bottleneck, (3, 4, 6, 3), options)


@register_model
def wave_resnet50_db2(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 with Daubechies wavelets of two vanishing moments: 25,557,032 parameters."""
    return _build("wave_resnet50_db2", pretrained, Bottleneck, (3, 4, 6, 3), {"wavelet": "db2", **options})


@register_model
def wave_resnet101(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-101 with wavelets: 44,549,160 parameters; options `wavelet="haar"` and `wavelet_shortcut=False`."""
    return _build("wave_resnet101", pretrained, Bottleneck, (3, 4, 23, 3), options)


@register_model
def wave_resnet152(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-152 with wavelets: 60,192,808 parameters; options `wavelet="haar"` and `wavelet_shortcut=False`."""
    return _build("wave_resnet152", pretrained, Bottleneck, (3, 8, 36, 3), options)
