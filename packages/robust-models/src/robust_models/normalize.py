"""The mean/std step as a layer, so that every model takes images in [0, 1]."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Map images (N, C, H, W) in [0, 1] to `(images - mean) / std`, per channel.

    `mean` and `std` are buffers of shape (1, C, 1, 1): they move with `.to(...)` and are stored in the `state_dict`.
    The range of the input is not checked, because that would wait for the device in every forward pass;
    `NormalizedModel` has a switch for it. Dtype and shape are.

    Args:
        mean: one value per channel, in units of [0, 1] pixels: a sequence, tensor or array.
        std: one positive value per channel.

    Raises:
        TypeError: if one of the two is a single number, or holds something else than numbers.
        ValueError: if the two differ in length, are empty, not finite, or `std` is not positive.

    Examples:
        >>> layer = Normalize(mean=[0.5], std=[0.25])
        >>> layer(torch.ones(1, 1, 1, 1)).item()
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Iterable[float] | Tensor, std: Iterable[float] | Tensor) -> None:
        super().__init__()
        means, stds = _numbers("mean", mean), _numbers("std", std)
        if len(means) != len(stds) or not means:
            raise ValueError(f"mean and std need one value per channel each, got {len(means)} and {len(stds)} values")
        if not all(math.isfinite(value) for value in (*means, *stds)) or min(stds) <= 0:
            raise ValueError(f"mean must be finite and std finite and positive, got mean={means}, std={stds}")
        shape = (1, len(means), 1, 1)
        self.register_buffer("mean", torch.tensor(means, dtype=torch.get_default_dtype()).view(shape))
        self.register_buffer("std", torch.tensor(stds, dtype=torch.get_default_dtype()).view(shape))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise `images` (N, C, H, W).

        Raises:
            TypeError: for images that are not floating, such as those of 0 to 255.
            ValueError: for another shape or number of channels.
        """
        if not images.is_floating_point():
            raise TypeError(f"images must be floats in [0, 1], got {images.dtype}: pass images / 255 for 8-bit images")
        if images.ndim != 4 or images.shape[1] != self.mean.shape[1]:
            raise ValueError(f"images must be (N, {self.mean.shape[1]}, H, W), got the shape {list(images.shape)}")
        return (images - self.mean) / self.std

    def extra_repr(self) -> str:
        """The values, where they can be read."""
        if self.mean.is_meta:
            return f"channels={self.mean.shape[1]}"
        mean, std = ([round(value, 4) for value in buffer.flatten().tolist()] for buffer in (self.mean, self.std))
        return f"mean={mean}, std={std}"


class NormalizedModel(nn.Module):
    """A model with its mean/std step inside: `images in [0, 1] -> model((images - mean) / std)`.

    An attack or a corruption that works on this model works on pixels; a normalisation outside of the model is the
    usual reason for robust accuracies that are wrong.

    The `state_dict` holds `normalize.mean`, `normalize.std` (shape (1, C, 1, 1)) and the wrapped model's keys behind
    `model.`; `load_weights` reads this and the other layouts in use. `unwrap()` gives the bare model back.

    timm's protocol is forwarded: the methods that take images normalise them first, and names of parameters carry the
    prefix `model.`. `pretrained_cfg` is the one exception: it says mean 0 and std 1, because that is what this model
    wants from a data loader.

    Args:
        model: logits (N, K) from normalised images.
        mean: one value per channel, in units of [0, 1] pixels.
        std: one positive value per channel.
        strict_range: check in every forward pass that the images lie in [0, 1]; costs a synchronisation with the device
            each time.

    Raises:
        TypeError: see `Normalize`.
        ValueError: if `model` already contains a `Normalize`, which would normalise twice; or see `Normalize`.
    """

    # TorchScript compiles properties unless they are named here.
    __jit_unused_properties__: ClassVar[list[str]] = [
        "num_classes",
        "num_features",
        "head_hidden_size",
        "feature_info",
        "pretrained_cfg",
        "default_cfg",
        "prune_intermediate_layers",
        "set_input_size",
        "get_attention_modules",
    ]

    def __init__(
        self,
        model: nn.Module,
        mean: Iterable[float] | Tensor,
        std: Iterable[float] | Tensor,
        *,
        strict_range: bool = False,
    ) -> None:
        super().__init__()
        if find_normalize(model) is not None:
            raise ValueError(
                f"{type(model).__name__} already normalises its input: unwrap() it first, or use it as it is"
            )
        self.normalize = Normalize(mean, std)
        self.model = model
        self.strict_range = strict_range

    def forward(self, images: Tensor) -> Tensor:
        """Classify `images` (N, C, H, W) in [0, 1]; logits (N, K) come back.

        Raises:
            TypeError: for images that are not floating.
            ValueError: for another shape or number of channels; with `strict_range`, if the images leave [0, 1] or
                hold NaN.
        """
        return self.model(self._normalized(images))  # type: ignore[no-any-return]

    def _normalized(self, images: Tensor) -> Tensor:
        if self.strict_range and not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError(
                "images must lie in [0, 1]: take the mean/std step out of the data pipeline, it is inside this model"
            )
        return self.normalize(images)  # type: ignore[no-any-return]

    def unwrap(self) -> nn.Module:
        """Return the wrapped model itself, which takes normalised images."""
        return self.model

    def forward_features(self, images: Tensor, **options: Any) -> Tensor:
        """Return the features of `images` in [0, 1] before pooling; `options` are those of the wrapped model."""
        return self.model.forward_features(self._normalized(images), **options)  # type: ignore[no-any-return, operator]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the output of `forward_features` into logits, or into what the last layer sees."""
        return self.model.forward_head(features, pre_logits=pre_logits)  # type: ignore[no-any-return, operator]

    def forward_intermediates(self, images: Tensor, **options: Any) -> Any:
        """Return timm's intermediate features of `images` in [0, 1]; `options` are those of the wrapped model."""
        return self.model.forward_intermediates(self._normalized(images), **options)  # type: ignore[operator]

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.model.get_classifier()  # type: ignore[no-any-return, operator]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for `num_classes` classes; 0 leaves pooled features."""
        if global_pool is None:
            self.model.reset_classifier(num_classes)  # type: ignore[operator]
        else:
            self.model.reset_classifier(num_classes, global_pool)  # type: ignore[operator]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade computation for memory in the wrapped model."""
        self.model.set_grad_checkpointing(enable)  # type: ignore[operator]

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone."""
        names = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else ()  # type: ignore[operator]
        return {f"model.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth, for timm's layer-wise learning rates."""
        patterns: Mapping[str, Any] = self.model.group_matcher(coarse=coarse)  # type: ignore[operator]
        return {group: _behind_model(pattern) for group, pattern in patterns.items()}

    # Three methods that not every model has: as properties they are missing here where they are missing there, which is
    # what timm's tools look at.
    @property
    def prune_intermediate_layers(self) -> Callable[..., list[int]]:
        """Cut off what lies behind the intermediate features that are asked for."""
        return self.model.prune_intermediate_layers  # type: ignore[return-value]

    @property
    def set_input_size(self) -> Callable[..., None]:
        """Adapt a model that is tied to one height and width, as most transformers are, to others."""
        return self.model.set_input_size  # type: ignore[return-value]

    @property
    def get_attention_modules(self) -> Callable[..., list[nn.Module]]:
        """The attention layers, in the order in which they compute."""
        return self.model.get_attention_modules  # type: ignore[return-value]

    @property
    def num_classes(self) -> int:
        """Number of logits K."""
        return self.model.num_classes  # type: ignore[return-value]

    @property
    def num_features(self) -> int:
        """Number of features that `forward_features` gives."""
        return self.model.num_features  # type: ignore[return-value]

    @property
    def head_hidden_size(self) -> int:
        """Number of features that the last layer sees."""
        return self.model.head_hidden_size  # type: ignore[return-value]

    @property
    def feature_info(self) -> Any:
        """The intermediate features, as timm describes them."""
        return self.model.feature_info

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The input, as timm describes it, with mean 0 and std 1: the loader must not normalise again."""
        channels = self.normalize.mean.shape[1]
        return {**self.model.pretrained_cfg, "mean": (0.0,) * channels, "std": (1.0,) * channels}  # type: ignore[dict-item]

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The older name of `pretrained_cfg` in timm."""
        return self.pretrained_cfg


def get_normalization(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return (mean, std) of the first `Normalize` inside `model`, or None where there is none.

    Examples:
        >>> get_normalization(NormalizedModel(nn.Identity(), mean=[0.5], std=[0.25]))
        ((0.5,), (0.25,))
    """
    layer = find_normalize(model)
    return None if layer is None else (tuple(layer.mean.flatten().tolist()), tuple(layer.std.flatten().tolist()))


def find_normalize(model: nn.Module) -> Normalize | None:
    """Return the first `Normalize` inside `model`, or None; its values are not read: it may lie on the meta device."""
    return next((module for module in model.modules() if isinstance(module, Normalize)), None)


def _numbers(name: str, values: Any) -> list[float]:
    """The values per channel as floats; also those of a tensor or array, whatever its shape."""
    try:
        if getattr(values, "ndim", 1) == 0:
            raise TypeError("a single number")
        return [float(value) for value in (values.flatten() if hasattr(values, "flatten") else values)]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} takes one number per channel, got {values!r}: [0.5] for grey images, [0.5, 0.5, 0.5] for colour"
        ) from error


def _behind_model(pattern: Any) -> Any:
    """Let a pattern of timm's group matcher (matched from the start of a name) match behind `model.`."""
    if pattern is None:
        return None
    if isinstance(pattern, str):
        return r"^model\.(?:" + re.sub(r"(?<![\[\\])\^", "", pattern) + ")"
    return [(_behind_model(part), order) for part, order in pattern]
