"""A small convolutional network for the digits (8 x 8) and CIFAR (32 x 32)."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional

from robust_models.image_size import check_images


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions (32, 32, 64 wide) with two max-pools, a hidden layer of 128, and the classifier.

    With one channel, 8 x 8 pixels and 10 classes: 62,250 parameters. It trains in seconds on one CPU core, which is
    what it is for: the digits demo, tests and small experiments. There is no batch norm, so images never influence each
    other. It follows timm's protocol; the fully connected layer ties it to one image size.

    Args:
        num_classes: number of logits; 0 returns the 128 features before the classifier.
        in_chans: channels of the images.
        img_size: height and width in pixels, one number or both, multiples of 4.
        drop_rate: dropout before the classifier, in [0, 1).

    Raises:
        ValueError: if `img_size` is not a positive multiple of 4.
    """

    def __init__(
        self, num_classes: int = 10, in_chans: int = 1, img_size: int | tuple[int, int] = 8, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height < 4 or width < 4 or height % 4 or width % 4:
            raise ValueError(f"img_size must be a positive multiple of 4, got {img_size}: the network halves it twice")
        self.img_size = (height, width)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = 128
        self.drop_rate = drop_rate
        self.conv1 = nn.Conv2d(in_chans, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * (height // 4) * (width // 4), 128)
        self.head = _classifier(num_classes)
        self.feature_info = [
            {"num_chs": 32, "reduction": 1, "module": "conv1"},
            {"num_chs": 32, "reduction": 2, "module": "conv2"},
            {"num_chs": 64, "reduction": 4, "module": "conv3"},
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Classify `images` (N, C, H, W); logits (N, num_classes) come back."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the map (N, 64, H / 4, W / 4) after the last pooling.

        Raises:
            ValueError: if the images have another size than the network was built for.
        """
        check_images(images, self.img_size)
        x = functional.relu(self.conv1(images))
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return functional.max_pool2d(functional.relu(self.conv3(x)), 2)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the map of `forward_features` into logits (N, num_classes), or with `pre_logits` into 128 features."""
        x = functional.relu(self.hidden(features.flatten(1)))
        x = functional.dropout(x, self.drop_rate, self.training)
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
        """Return (output of `forward_features`, list of maps after the first convolution and after each pooling).

        Args:
            images: (N, C, H, W).
            indices: which of the three maps; a number n means the last n, None all.
            norm: must be False: there is no last norm to apply.
            stop_early: leave out the layers after the last map that was asked for.
            output_fmt: only "NCHW".
            intermediates_only: return the list alone.

        Raises:
            ValueError: for `norm` or another `output_fmt`.
        """
        if norm or output_fmt != "NCHW":
            raise ValueError(
                f"SmallCNN gives maps as NCHW and has no last norm, got output_fmt={output_fmt!r}, norm={norm}"
            )
        take, last = feature_take_indices(3, indices)
        x, maps = images, []
        for index, layer in enumerate((self.conv1, self.conv2, self.conv3)):
            if stop_early and index > last:
                break
            x = functional.relu(layer(x))
            x = functional.max_pool2d(x, 2) if index else x
            if index in take:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one; 0 classes leave the 128 features.

        Raises:
            ValueError: if `global_pool` is given: the network has none.
        """
        if global_pool is not None:
            raise ValueError(f"SmallCNN has no global pooling to change, got global_pool={global_pool!r}")
        self.num_classes = num_classes
        self.head = _classifier(num_classes).to(self.hidden.weight)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse: the network is too small to gain from it.

        Raises:
            ValueError: if `enable` is true.
        """
        if enable:
            raise ValueError("SmallCNN does not offer gradient checkpointing: it needs a few megabytes at most")

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth for timm; `coarse` takes the last two convolutions as one."""
        return {"stem": r"^conv1", "blocks": r"^conv[23]" if coarse else r"^conv(\d+)"}


def _classifier(num_classes: int) -> nn.Module:
    return nn.Linear(128, num_classes) if num_classes > 0 else nn.Identity()


def _config(channels: int, side: int) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (channels, side, side),
        "fixed_input_size": True,
        "pool_size": (side // 4, side // 4),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.0,) * channels,
        "std": (1.0,) * channels,
        "first_conv": "conv1",
        "classifier": "head",
    }


_FEATURES = {"out_indices": (0, 1, 2), "feature_cls": "getter"}  # of features_only=True
default_cfgs = generate_default_cfgs({"small_cnn_8.untrained": _config(1, 8), "small_cnn_32.untrained": _config(3, 32)})


@register_model
def small_cnn_8(pretrained: bool = False, **options: Any) -> SmallCNN:
    """The network for the digits: 1 x 8 x 8, 10 classes, 62,250 parameters; no weights are published."""
    settings = {"in_chans": 1, "img_size": 8, **options}
    return build_model_with_cfg(SmallCNN, "small_cnn_8", pretrained, feature_cfg=dict(_FEATURES), **settings)


@register_model
def small_cnn_32(pretrained: bool = False, **options: Any) -> SmallCNN:
    """The network for CIFAR: 3 x 32 x 32, 10 classes, 554,346 parameters; no weights are published."""
    settings = {"in_chans": 3, "img_size": 32, **options}
    return build_model_with_cfg(SmallCNN, "small_cnn_32", pretrained, feature_cfg=dict(_FEATURES), **settings)
