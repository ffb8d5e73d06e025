"""RobNets: networks of cells that were found by a search for robust architectures."""

from typing import Any, Literal

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from torch import Tensor, nn
from torch.nn import functional

from robust_models.built_in_normalize import CIFAR10_MEAN, CIFAR10_STD
from robust_models.robnet_cells import Cell
from robust_models.robnet_genotypes import FREE, LARGE, Genotype, parse_genotype


class RobNet(nn.Module):
    """A network of cells whose edges hold nothing, a separable convolution, an identity, or both.

    Guo et al., "When NAS Meets Robustness: In Search of Robust Architectures against Adversarial Attacks", CVPR 2020,
    arXiv:1911.10695. Cells `cells // 3` and `2 * cells // 3` halve the map and double the width. Unlike in the
    published code, one entry of the genotype is shared without a switch, and depth, width and stem belong to the names.

    Args:
        genotype: one entry of 14 edges for each cell, or one for all; see `parse_genotype`.
        channels: width of the nodes of the first cell, 2 or more.
        cells: number of cells, 3 or more.
        stem: "cifar" keeps the size of the images, "imagenet" halves it three times.
        num_classes: number of logits; 0 returns the 16 * channels features before the classifier.
        in_chans: channels of the images.
        global_pool: "avg", "max" or another pooling of timm; "" with `num_classes=0` leaves maps.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth of the edges in the last cell, growing linearly from 0 in the first; in [0, 1).

    Raises:
        ValueError: for a wrong genotype, too few cells or channels, another stem, or a rate outside [0, 1).
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 36,
        cells: int = 20,
        stem: Literal["cifar", "imagenet"] = "cifar",
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if cells < 3 or channels < 2:
            raise ValueError(f"a RobNet has at least 3 cells and 2 channels, got cells={cells}, channels={channels}")
        if not (0 <= drop_rate < 1 and 0 <= drop_path_rate < 1):
            raise ValueError(f"rates must lie in [0, 1), got drop_rate={drop_rate}, drop_path_rate={drop_path_rate}")
        self.genotype = parse_genotype(genotype, cells)
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        if stem == "cifar":
            self.stem = nn.Sequential(
                nn.Conv2d(in_chans, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels)
            )
            before_last = last = 3 * channels
        elif stem == "imagenet":
            self.stem0 = nn.Sequential(
                *_halving(in_chans, channels // 2), nn.ReLU(inplace=True), *_halving(channels // 2, channels)
            )
            self.stem1 = nn.Sequential(nn.ReLU(), *_halving(channels, channels))
            before_last = last = channels
        else:
            raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        width, after_reduction = channels, stem == "imagenet"
        self.cells = nn.ModuleList()
        for index, edges in enumerate(self.genotype):
            reduction = index in (cells // 3, 2 * cells // 3)
            width *= 2 if reduction else 1
            drop_path = drop_path_rate * index / (cells - 1)
            self.cells.append(Cell((before_last, last, width), edges, reduction, after_reduction, drop_path))
            before_last, last, after_reduction = last, 4 * width, reduction
        self.num_features = last
        self.feature_info = [
            {"num_chs": 4 * channels * 2**stage, "reduction": 2**stage * (1 if stem == "cifar" else 8), "module": name}
            for stage, name in enumerate(f"cells.{end - 1}" for end in (cells // 3, 2 * cells // 3, cells))
        ]
        self.reset_classifier(num_classes, global_pool)

    def forward(self, images: Tensor) -> Tensor:
        """Classify `images` (N, C, H, W); logits (N, num_classes) come back."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the map (N, 16 * channels, H / 4, W / 4) of the last cell; with the "imagenet" stem / 32."""
        return self._run(images, [], len(self.cells))[0]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the map of `forward_features` into logits, or with `pre_logits` into pooled features."""
        x = self.global_pooling(features)
        if self.global_pooling.pool_type:
            x = x.flatten(1)
        x = functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return (output of `forward_features`, list of maps at the end of each of the three stages).

        Args:
            images: (N, C, H, W).
            indices: which of the three maps; a number n means the last n, None all.
            norm: must be False: there is no last norm to apply.
            stop_early: leave out the cells after the last map that was asked for.
            output_fmt: only "NCHW".
            intermediates_only: return the list alone.

        Raises:
            ValueError: for `norm` or another `output_fmt`.
        """
        if norm or output_fmt != "NCHW":
            raise ValueError(
                f"RobNet gives maps as NCHW and has no last norm, got output_fmt={output_fmt!r}, norm={norm}"
            )
        take, last = feature_take_indices(len(self.feature_info), indices)
        ends = self._stage_ends()
        x, maps = self._run(images, [ends[index] for index in take], ends[last] + 1 if stop_early else len(self.cells))
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,  # noqa: ARG002
        prune_head: bool = True,
    ) -> list[int]:
        """Remove what the maps `indices` do not need, and return their numbers; there is no last norm to prune."""
        take, last = feature_take_indices(len(self.feature_info), indices)
        self.cells = self.cells[: self._stage_ends()[last] + 1]
        self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or last + 1 < len(self.feature_info):
            self.reset_classifier(0, "")
        return list(take)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one, and the pooling where `global_pool` is given; 0 classes leave features.

        Raises:
            ValueError: if there are classes but no pooling.
        """
        if global_pool is not None:
            self.global_pooling = SelectAdaptivePool2d(pool_type=global_pool)
        if num_classes and not self.global_pooling.pool_type:
            raise ValueError(f"{num_classes} classes need pooled features, got global_pool='': choose 'avg'")
        self.num_classes = num_classes
        self.head_hidden_size = self.num_features * int(self.global_pooling.feat_mult())  # type: ignore[no-untyped-call]
        weight = next(self.cells.parameters())
        classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self.classifier = classifier.to(weight.device, weight.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade computation for memory: keep only the maps between cells, and compute the rest again.

        In training, the running statistics of batch norm then move twice per step.
        """
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth for timm; `coarse` takes all cells as one."""
        return {"stem": r"^stem", "blocks": r"^cells" if coarse else r"^cells\.(\d+)"}

    def _stage_ends(self) -> list[int]:
        return [int(str(info["module"]).rpartition(".")[2]) for info in self.feature_info]

    def _run(self, images: Tensor, take: list[int], stop: int) -> tuple[Tensor, list[Tensor]]:
        """The output of the last cell before `stop`, and those of the cells in `take`."""
        if hasattr(self, "stem"):
            before_last = last = self.stem(images)
        else:
            before_last = self.stem0(images)
            last = self.stem1(before_last)
        maps = []
        for index, cell in enumerate(self.cells):
            if index == stop:
                break
            y = checkpoint(cell, before_last, last) if self.grad_checkpointing else cell(before_last, last)
            before_last, last = last, y
            if index in take:
                maps.append(last)
        return last, maps


def _halving(channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out_channels)]


def _config(side: int, num_classes: int, **differences: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": num_classes,
        "input_size": (3, side, side),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "first_conv": "stem.0",
        "classifier": "classifier",
        **differences,
    }


default_cfgs = generate_default_cfgs(
    {
        "robnet_free.untrained": _config(32, 10, pool_size=(8, 8)),
        "robnet_large_v1.untrained": _config(32, 10, pool_size=(8, 8)),
        "robnet_large_v2.untrained": _config(32, 10, pool_size=(8, 8)),
        "robnet_large_imagenet.untrained": _config(
            224,
            1000,
            pool_size=(7, 7),
            crop_pct=0.875,
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            first_conv="stem0.0",
        ),
    }
)


def _build(name: str, pretrained: bool, settings: dict[str, Any], options: dict[str, Any]) -> RobNet:
    return build_model_with_cfg(
        RobNet,
        name,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2), "feature_cls": "getter"},
        **{**settings, **options},
    )


@register_model
def robnet_free(pretrained: bool = False, **options: Any) -> RobNet:
    """For CIFAR, each of 20 cells with its own genotype: 5,439,790 parameters for 10 classes."""
    return _build("robnet_free", pretrained, {"genotype": FREE, "channels": 36, "cells": 20}, options)


@register_model
def robnet_large_v1(pretrained: bool = False, **options: Any) -> RobNet:
    """For CIFAR, 20 cells of one genotype, 36 channels: 6,842,710 parameters for 10 classes."""
    return _build("robnet_large_v1", pretrained, {"genotype": LARGE, "channels": 36, "cells": 20}, options)


@register_model
def robnet_large_v2(pretrained: bool = False, **options: Any) -> RobNet:
    """For CIFAR, 33 cells of one genotype, 64 channels: 33,326,666 parameters for 10 classes."""
    return _build("robnet_large_v2", pretrained, {"genotype": LARGE, "channels": 64, "cells": 33}, options)


@register_model
def robnet_large_imagenet(pretrained: bool = False, **options: Any) -> RobNet:
    """For ImageNet, 20 cells of one genotype, 48 channels: 12,756,448 parameters for 1000 classes."""
    settings = {"genotype": LARGE, "channels": 48, "cells": 20, "stem": "imagenet", "num_classes": 1000}
    return _build("robnet_large_imagenet", pretrained, settings, options)
