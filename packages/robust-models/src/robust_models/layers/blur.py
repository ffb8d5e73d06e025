"""Blur before every subsampling, so that a network answers alike on shifted images."""

from typing import Any, Literal, get_args

from timm.layers.blur_pool import BlurPool2d as BlurPool2d
from torch import Tensor, nn

from robust_models.layers.conversion import find_layers, like_tensors_of, record

Mode = Literal["all", "max_only"]


def convert_blurpool(
    model: nn.Module,
    filt_size: int = 3,
    pad_mode: str = "reflect",
    *,
    mode: Mode = "all",
    include: str | None = None,
    exclude: str | None = None,
) -> nn.Module:
    """Let max-pools and convolutions of stride 2 work densely, and a binomial blur of stride 2 subsample.

    Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486, section 3. The sizes of
    all maps and the state dict stay the same, what is computed does not: train the model, or load weights that were
    trained so. In blocks of timm that have a place for it (`aa`), the blur comes behind the activation that follows the
    convolution, as in the paper, elsewhere right behind the convolution. Strided 1 x 1 convolutions (shortcuts) stay.
    Of a pool with `ceil_mode` the last, partial window is lost.

    timm has such networks ready, with weights: `resnetblur50` is `resnet50` converted with `exclude="^conv1$"`.

    Args:
        model: changed in place.
        filt_size: side of the blur in pixels, an odd number from 3.
        pad_mode: as in `torch.nn.functional.pad`; "reflect" wants maps larger than `filt_size // 2`.
        mode: "max_only" leaves the convolutions alone.
        include: regular expression of the layers to convert; None takes all.
        exclude: regular expression of the layers to leave out.

    Raises:
        ValueError: if there is no layer of stride 2 to convert, or a setting is out of range.
    """
    if filt_size < 3 or filt_size % 2 == 0 or mode not in get_args(Mode):
        raise ValueError(
            f"filt_size must be an odd number from 3 and mode one of {get_args(Mode)}, got {filt_size} and {mode!r}"
        )

    def is_wanted(module: nn.Module) -> bool:
        return _is_pool(module) or (mode == "all" and _is_conv(module))

    found = find_layers(
        model,
        is_wanted,
        what="max-pool or convolution of stride 2",
        done=lambda module: isinstance(module, BlurPool2d),
        include=include,
        exclude=exclude,
    )
    for layer, name in {layer: name for name, layer in found.items()}.items():  # a layer in several places comes once
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else None
        blur = like_tensors_of(BlurPool2d(channels, filt_size=filt_size, stride=2, pad_mode=pad_mode), model)
        _make_dense(layer, blur.train(layer.training), model.get_submodule(name.rpartition(".")[0]))
    options = {"filt_size": filt_size, "pad_mode": pad_mode, "mode": mode, "include": include, "exclude": exclude}
    return record(model, "blurpool", found, options)


def _is_pool(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d) and _pair(module.stride) == (2, 2)


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.stride == (2, 2) and max(module.kernel_size) > 1


def _make_dense(layer: nn.Module, blur: nn.Module, block: Any) -> None:
    """Take the layer's stride away, and put the blur into the block's place for it if there is one, else behind it."""
    layer.stride = (1, 1)  # type: ignore[assignment]
    place = getattr(block, "aa", blur)
    if isinstance(layer, nn.Conv2d) and (place is None or isinstance(place, nn.Identity)):
        block.aa = blur
    else:
        layer.add_module("blur", blur)
        layer.register_forward_hook(_blur, prepend=True)


def _blur(layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return layer.get_submodule("blur")(output)  # type: ignore[no-any-return]


def _pair(stride: int | tuple[int, int]) -> tuple[int, int]:
    return (stride, stride) if isinstance(stride, int) else stride
