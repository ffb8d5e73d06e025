"""What timm expects of a convolutional network, written once for the residual networks for CIFAR."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

from timm.layers.drop import calculate_drop_path_rates
from timm.models import build_model_with_cfg, checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional

Network = TypeVar("Network", bound="StagedNetwork")


class Stage(NamedTuple):
    """A stage: the name of its module, its number of blocks, the channels of its map, the stride of its first block."""

    name: str
    depth: int
    channels: int
    stride: int


class StagedNetwork(nn.Module):
    """A convolutional network of a stem, stages of residual blocks, and a linear classifier on the averaged map.

    The networks for CIFAR differ in their blocks and in the names of their weights, which are those of the published
    files. Subclasses build their layers, say in the class variables how these are called, and define `stem` and
    `finish`. The mean over the map stands for the published windows of 4 x 4 or 8 x 8, which are the whole map of an
    image of 32 x 32, so that images of other sizes work.

    Args:
        stages: in their order.
        num_classes: number of logits; 0 returns the averaged features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier, in [0, 1).

    Raises:
        ValueError: if `drop_rate` is not in [0, 1).
    """

    classifier_name: ClassVar[str]
    blocks_name: ClassVar[str] = ""  # of the blocks inside of a stage; "" where the stage itself holds them
    stem_pattern: ClassVar[str]
    stage_pattern: ClassVar[str]
    block_pattern: ClassVar[str]

    def __init__(self, stages: Sequence[Stage], *, num_classes: int, in_chans: int, drop_rate: float) -> None:
        super().__init__()
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate must lie in [0, 1), got {drop_rate}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.num_features = self.head_hidden_size = stages[-1].channels
        self.feature_info: list[dict[str, Any]] = []
        reduction = 1
        for stage in stages:
            reduction *= stage.stride
            self.feature_info.append({"num_chs": stage.channels, "reduction": reduction, "module": stage.name})

    def stem(self, images: Tensor) -> Tensor:
        """What comes before the first stage."""
        raise NotImplementedError

    def finish(self, maps: Tensor) -> Tensor:
        """What comes between the last stage and the mean."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Classify `images` (N, C, H, W); logits (N, num_classes) come back."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the map (N, num_features, h, w) before the mean."""
        x = self.stem(images)
        for info in self.feature_info:
            x = self._stage(info["module"], x)
        return self.finish(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the map of `forward_features` into logits, or with `pre_logits` into averaged features."""
        x = functional.dropout(features.mean((2, 3)), self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return (output of `forward_features`, list of the maps behind each stage).

        Args:
            images: (N, C, H, W).
            indices: which of the stages; a number n means the last n, None all.
            norm: must be False: the last norm fits the last stage only.
            stop_early: leave out the stages after the last one that was asked for.
            output_fmt: only "NCHW".
            intermediates_only: return the list alone.

        Raises:
            ValueError: for `norm` or another `output_fmt`.
        """
        if norm or output_fmt != "NCHW":
            raise ValueError(
                f"{type(self).__name__} gives maps as NCHW and without a norm, got output_fmt={output_fmt!r}, "
                f"norm={norm}: leave both out"
            )
        take, last = feature_take_indices(len(self.feature_info), indices)
        x = self.stem(images)
        maps: list[Tensor] = []
        for index, info in enumerate(self.feature_info):
            if stop_early and index > last:
                return maps if intermediates_only else (x, maps)
            x = self._stage(info["module"], x)
            if index in take:
                maps.append(x)
        return maps if intermediates_only else (self.finish(x), maps)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one; 0 classes leave the averaged features.

        Raises:
            ValueError: for a `global_pool` other than "avg".
        """
        if global_pool not in (None, "avg"):
            raise ValueError(f"{type(self).__name__} averages its map, got global_pool={global_pool!r}: use 'avg'")
        self.num_classes = num_classes
        new = linear_classifier(self.num_features, num_classes).to(next(self.parameters()))
        setattr(self, self.classifier_name, new)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade computation for memory: keep only the maps between blocks, and compute the rest again.

        In training, the running statistics of batch norm then move twice per step.
        """
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone: none, besides norms and biases."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth for timm: by blocks, or with `coarse` by stages."""
        return {"stem": self.stem_pattern, "blocks": self.stage_pattern if coarse else self.block_pattern}

    def _stage(self, name: str, x: Tensor) -> Tensor:
        stage = self.get_submodule(name)
        if self.grad_checkpointing:
            return checkpoint_seq(stage.get_submodule(self.blocks_name), x)  # type: ignore[no-any-return]
        return stage(x)  # type: ignore[no-any-return]


def residual_stages(
    make_block: Callable[[int, int, int, float], nn.Module],
    stages: Sequence[Stage],
    *,
    stem_channels: int,
    drop_path_rate: float,
) -> list[nn.Sequential]:
    """Build the blocks of each stage; stochastic depth grows linearly from 0 at the first block.

    Args:
        make_block: builds a block from the channels that come in, those that go out, the stride, and the chance to be
            left out in training.
        stages: in their order.
        stem_channels: of the map before the first stage.
        drop_path_rate: chance of the last block, in [0, 1).

    Raises:
        ValueError: if `drop_path_rate` is not in [0, 1).
    """
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must lie in [0, 1), got {drop_path_rate}")
    rates: Iterator[Any] = iter(calculate_drop_path_rates(drop_path_rate, sum(stage.depth for stage in stages)))
    built, before = [], stem_channels
    for stage in stages:
        blocks = [make_block(before, stage.channels, stage.stride, next(rates))]
        blocks += [make_block(stage.channels, stage.channels, 1, next(rates)) for _ in range(stage.depth - 1)]
        built.append(nn.Sequential(*blocks))
        before = stage.channels
    return built


def build_staged(
    network: type[Network],
    name: str,
    pretrained: bool,
    options: dict[str, Any],
    *,
    stages: int = 4,
    checkpoint_filter: Callable[..., dict[str, Tensor]] | None = None,
) -> Network:
    """Build the network that timm knows as `name`, of so many `stages`, with the `options` of its constructor."""
    features = {"out_indices": tuple(range(stages)), "feature_cls": "getter"}
    built: Network = build_model_with_cfg(
        network, name, pretrained, pretrained_filter_fn=checkpoint_filter, feature_cfg=features, **options
    )
    return built


def linear_classifier(features: int, num_classes: int) -> nn.Module:
    """The last layer; without classes it hands the features on."""
    return nn.Linear(features, num_classes) if num_classes > 0 else nn.Identity()


def cifar_config(first_conv: str, classifier: str, num_classes: int = 10) -> dict[str, Any]:
    """What timm wants to know of a network for CIFAR that takes images in [0, 1] as they are."""
    return {
        "url": "",
        "num_classes": num_classes,
        "input_size": (3, 32, 32),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "first_conv": first_conv,
        "classifier": classifier,
    }
