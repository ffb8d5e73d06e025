"""CrossNorm and SelfNorm in the blocks of a residual network."""

from typing import Any, Literal, get_args

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robust_models.layers.conversion import find_layers, forget, like_tensors_of, new_generator, record
from robust_models.layers.cross_norm import Crop, CrossNorm
from robust_models.layers.self_norm import SelfNorm

Kind = Literal["cnsn", "sn", "cn"]
Position = Literal["post", "residual", "identity", "pre", "image"]


class CNSN(nn.Module):
    """CrossNorm, which acts in training while it is active, then SelfNorm.

    Tang et al., "CrossNorm and SelfNorm for Generalization under Distribution Shifts", ICCV 2021, arXiv:2102.02811.

    Args:
        crossnorm: the first layer; None leaves it out.
        selfnorm: the second layer; None leaves it out.
    """

    def __init__(self, crossnorm: CrossNorm | None = None, selfnorm: SelfNorm | None = None) -> None:
        super().__init__()
        self.crossnorm = crossnorm
        self.selfnorm = selfnorm

    @property
    def kind(self) -> str:
        """What the layer has: "cnsn", "sn" or "cn"; "" if nothing."""
        return ("" if self.crossnorm is None else "cn") + ("" if self.selfnorm is None else "sn")

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, H, W) of the same shape."""
        if self.crossnorm is not None:
            maps = self.crossnorm(maps)
        return maps if self.selfnorm is None else self.selfnorm(maps)

    def before(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As a forward pre-hook: what the layer behind gets."""
        return (self(inputs[0]), *inputs[1:])

    def behind(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        """As a forward hook: what the layer in front gives."""
        return self(output)  # type: ignore[no-any-return]


class ActiveLayers:
    """A forward pre-hook of a model that draws, in every training step, which of its CrossNorm layers act.

    Args:
        layers: of which to choose.
        number: how many act at once.
        probability: of a step in which any of them act, in [0, 1].
        generator: where the draws come from, on the CPU.
    """

    def __init__(self, layers: list[CrossNorm], number: int, probability: float, generator: torch.Generator) -> None:
        self.layers = layers
        self.number = number
        self.probability = probability
        self.generator = generator

    def __call__(self, model: nn.Module, _inputs: object) -> None:
        """Draw, if the model is in training mode."""
        if model.training:
            self._draw()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it is no part of the graph
    def _draw(self) -> None:
        acts = bool(torch.rand((), generator=self.generator) < self.probability)
        chosen = torch.randperm(len(self.layers), generator=self.generator)[: self.number].tolist() if acts else []
        for index, layer in enumerate(self.layers):
            layer.active = index in chosen


def convert_cnsn(
    model: nn.Module,
    kind: Kind = "cnsn",
    pos: Position = "post",
    *,
    crop: Crop = "neither",
    beta: float = 1.0,
    active_num: int = 1,
    cn_prob: float = 0.5,
    two_gates: bool = False,
    generator: torch.Generator | None = None,
    include: str | None = None,
    exclude: str | None = None,
) -> nn.Module:
    """Put CrossNorm and SelfNorm into every block of a ResNet of timm (ResNeXt, Wide ResNet, SE-ResNet and so on).

    The new keys are `layer1.0.cnsn.selfnorm.*`; a fresh SelfNorm changes what the model computes, so train it.
    CrossNorm acts in training only: in every step, with probability `cn_prob`, in `active_num` of the layers.

    The published settings: on CIFAR, crop="both", active_num=2, cn_prob=0.25. On ImageNet with a ResNet-50,
    `convert_cnsn(convert_cnsn(model, "sn"), "cn", "image")`: SelfNorm in the blocks, CrossNorm on the input.

    Args:
        model: changed in place.
        kind: both ("cnsn"), SelfNorm ("sn") or CrossNorm ("cn").
        pos: after the sum and before the last activation ("post"), at the end of the branch of convolutions
            ("residual"), at its begin ("pre"), at the end of the shortcut ("identity"), or, for "cn" alone, once before
            the whole model ("image").
        crop: see `CrossNorm`.
        beta: see `CrossNorm`.
        active_num: how many of the CrossNorm layers act at once, at least 1.
        cn_prob: probability of a step in which they do, in [0, 1].
        two_gates: see `SelfNorm`.
        generator: of the model's CrossNorm layers and their choice; see `PermutedAdaIN`.
        include: regular expression of the blocks to convert; None takes all.
        exclude: regular expression of the blocks to leave out.

    Raises:
        ValueError: if there is no such block, there are fewer than `active_num`, a setting is out of range, or
            "image" is asked of a Sequential.
    """
    if kind not in get_args(Kind) or pos not in get_args(Position) or (pos == "image" and kind != "cn"):
        raise ValueError(
            f"kind must be one of {get_args(Kind)} and pos one of {get_args(Position)}, 'image' for kind 'cn' alone; "
            f"got kind={kind!r}, pos={pos!r}"
        )
    if pos == "image" and isinstance(model, nn.Sequential):
        raise ValueError("a Sequential would run the layer for the image as its last: put it into another module")
    if not 0 <= cn_prob <= 1 or active_num < 1:
        raise ValueError(f"cn_prob must be in [0, 1] and active_num at least 1, got {cn_prob} and {active_num}")
    hosts = {"": model} if pos == "image" and not hasattr(model, "cnsn") else {}
    if pos != "image":
        others = sorted({str(each.cnsn.kind) for each in model.modules() if _is_converted(each)} - {kind})  # type: ignore[union-attr]
        if others:
            raise ValueError(f"the blocks have layers of the kind {others[0]!r} already: revert_cnsn(model) first")
        hosts = find_layers(
            model, _is_block, what="residual block of timm", done=_is_converted, include=include, exclude=exclude
        )
    if kind != "sn" and hosts and active_num > len(hosts):
        raise ValueError(f"active_num={active_num} of {len(hosts)} CrossNorm layers cannot act: choose at most all")
    generator = new_generator() if generator is None else generator
    crossnorms = []
    for host in hosts.values():
        crossnorm = None if kind == "sn" else CrossNorm(crop, beta, generator=generator)
        selfnorm = None if kind == "cn" else like_tensors_of(SelfNorm(_channels(host, pos), two_gates), host)
        layer = CNSN(crossnorm, selfnorm).train(host.training)  # type: ignore[arg-type]
        host.add_module("cnsn", layer)
        host.cnsn_hooks = [_attach(layer, host, pos)]  # type: ignore[assignment]
        crossnorms += [] if crossnorm is None else [crossnorm]
    if crossnorms:
        draw = ActiveLayers(crossnorms, active_num, cn_prob, generator)
        handles: list[RemovableHandle] = vars(model).setdefault("cnsn_hooks", [])
        handles.append(model.register_forward_pre_hook(draw, prepend=True))
    options: dict[str, object] = {
        "kind": kind,
        "pos": pos,
        "crop": crop,
        "beta": beta,
        "active_num": active_num,
        "cn_prob": cn_prob,
    }
    options |= {"two_gates": two_gates, "include": include, "exclude": exclude}
    return record(model, "cnsn", hosts, options)


def revert_cnsn(model: nn.Module) -> nn.Module:
    """Take CrossNorm and SelfNorm out again, with what SelfNorm has learned, and return the model.

    There is no need to after training: CrossNorm does nothing in evaluation, and SelfNorm belongs to the network.
    """
    for module in list(model.modules()):
        handles: list[RemovableHandle] = vars(module).pop("cnsn_hooks", [])
        for handle in handles:
            handle.remove()
        if isinstance(module._modules.get("cnsn"), CNSN):
            del module.cnsn
    return forget(model, "cnsn")


def _is_block(module: nn.Module) -> bool:
    return isinstance(module, BasicBlock | Bottleneck)


def _is_converted(module: nn.Module) -> bool:
    return _is_block(module) and hasattr(module, "cnsn")


def _channels(block: Any, pos: Position) -> int:
    channels = block.conv1.in_channels if pos == "pre" else _last_bn(block).num_features
    return int(channels)


def _last_bn(block: Any) -> Any:
    return block.bn3 if isinstance(block, Bottleneck) else block.bn2


def _attach(layer: CNSN, host: Any, pos: Position) -> RemovableHandle:
    """Let the layer work at its position, by a hook on the layer of the block that is beside it."""
    if pos == "image":
        return _before(host, layer)
    if pos == "pre":
        return _before(host.conv1, layer)
    if pos == "post":
        return _before(host.act3 if isinstance(host, Bottleneck) else host.act2, layer)
    if pos == "identity":
        host.downsample = nn.Identity() if host.downsample is None else host.downsample
        return _behind(host.downsample, layer)
    last = next(each for each in (host.drop_path, host.se, _last_bn(host)) if each is not None)
    return _behind(last, layer)


def _before(module: nn.Module, layer: CNSN) -> RemovableHandle:
    return module.register_forward_pre_hook(layer.before)


def _behind(module: nn.Module, layer: CNSN) -> RemovableHandle:
    return module.register_forward_hook(layer.behind)
