"""XCiT and GFNet with our layers beside the same networks with the layers as they were published, on one thread.

XCiT's attention is that of El-Nouby et al., NeurIPS 2021, arXiv:2106.09681: queries and keys of unit length over the
tokens, their products times a temperature, a softmax over channels, each an operation of its own, and a class attention
that computes queries of all tokens. GFNet's filter is that of Rao et al., NeurIPS 2021, arXiv:2107.00645: a transform
there and back, both orthonormal. They have the weights of ours and give the same logits. CPU seconds of the process;
the two of a pair take turns, and the median of the ratios counts.

    nox -s bench -- models/published_layers
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence

import robust_models  # noqa: F401  # registers its models with timm
import timm
import torch
from _pages import arguments, made_with, prose, publish, table, versions
from robust_models.gfnet import GlobalFilter
from timm.models.cait import ClassAttn
from timm.models.xcit import XCA
from torch import Tensor, nn
from torch.nn import functional

MODELS = ("xcit_small_12_p16_224", "xcit_small_12_p4_32", "gfnet_xs", "gfnet_h_tiny")


class PublishedXCA(nn.Module):
    """Attention between the channels of each head."""

    def __init__(self, ours: XCA) -> None:
        super().__init__()
        self.num_heads = ours.num_heads
        self.temperature, self.qkv, self.proj = ours.temperature, ours.qkv, ours.proj

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the channels of tokens (N, T, C)."""
        count, length, width = tokens.shape
        split = self.qkv(tokens).reshape(count, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = (each.transpose(-2, -1) for each in split.permute(2, 0, 3, 1, 4).unbind(0))
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        weights = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        return self.proj((weights @ v).permute(0, 3, 1, 2).reshape(count, length, width))  # type: ignore[no-any-return]


class PublishedClassAttention(nn.Module):
    """What the class token takes from all tokens; queries, keys and values of all tokens from one layer."""

    def __init__(self, ours: ClassAttn) -> None:
        super().__init__()
        self.num_heads, self.scale = ours.num_heads, ours.scale
        self.qkv = nn.Linear(ours.q.in_features, 3 * ours.q.in_features)
        with torch.no_grad():
            self.qkv.weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
            self.qkv.bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
        self.proj = ours.proj

    def forward(self, tokens: Tensor) -> Tensor:
        """The class token (N, 1, C) of tokens (N, T, C)."""
        count, length, width = tokens.shape
        split = self.qkv(tokens).reshape(count, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q[:, :, :1] * k).sum(dim=-1) * self.scale).softmax(dim=-1)
        return self.proj((weights.unsqueeze(2) @ v).transpose(1, 2).reshape(count, 1, width))  # type: ignore[no-any-return]


class PublishedFilter(nn.Module):
    """The product of the spectra, in float32."""

    def __init__(self, ours: GlobalFilter) -> None:
        super().__init__()
        self.grid, self.complex_weight = ours.grid, ours.complex_weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Filter tokens (N, T, C)."""
        count, length, width = tokens.shape
        maps = tokens.view(count, *self.grid, width).to(torch.float32)
        spectrum = torch.fft.rfft2(maps, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.complex_weight)
        return torch.fft.irfft2(spectrum, s=self.grid, dim=(1, 2), norm="ortho").reshape(count, length, width)


PUBLISHED = {XCA: PublishedXCA, ClassAttn: PublishedClassAttention, GlobalFilter: PublishedFilter}


def published(model: nn.Module) -> nn.Module:
    """A copy of the network with the layers as they were published."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if type(layer) in PUBLISHED:
            parent, _, key = name.rpartition(".")
            setattr(model.get_submodule(parent), key, PUBLISHED[type(layer)](layer))
    return model


@torch.inference_mode()
def forward(model: nn.Module, images: Tensor) -> None:
    """The logits."""
    model(images)


def training(model: nn.Module, images: Tensor) -> None:
    """The gradients of a loss by the weights."""
    model(images).logsumexp(dim=1).sum().backward()


def seconds(work: Callable[[nn.Module, Tensor], None], model: nn.Module, images: Tensor) -> float:
    """CPU seconds of a pass."""
    model.zero_grad()
    start = time.process_time()
    work(model, images)
    return time.process_time() - start


def taking_turns(work: Callable[[nn.Module, Tensor], None], pair: Sequence[nn.Module], images: Tensor) -> list[float]:
    """CPU seconds of both, from two passes each in the order 1 2 2 1."""
    first, second = pair
    once = [seconds(work, model, images) for model in (first, second, second, first)]
    return [(once[0] + once[3]) / 2, (once[1] + once[2]) / 2]


def measured(name: str, rounds: int, batch: int) -> list[dict[str, object]]:
    """Images per second of both, and how far the logits differ, in units of their root mean square."""
    torch.manual_seed(0)
    ours = timm.create_model(name).eval()
    theirs = published(ours)
    side = ours.pretrained_cfg["input_size"][-1]
    count = batch if side > 32 else 16 * batch
    images = torch.rand(count, 3, side, side)
    with torch.no_grad():
        logits = ours(images)
        difference = (theirs(images) - logits).abs().max() / logits.square().mean().sqrt()
    rows = []
    for work in (forward, training):
        times = [taking_turns(work, (ours, theirs), images) for _ in range(rounds + 1)]
        mine, other = zip(*times[1:], strict=True)  # the first warms up
        ratios = sorted(slow / quick for quick, slow in zip(mine, other, strict=True))
        row = {"name": name, "work": work.__name__, "batch": count, "difference": difference.item()}
        row |= {"ours": count / statistics.median(mine), "published": count / statistics.median(other)}
        rows.append(row | {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]})
    return rows


def main() -> None:
    """Measure and publish."""
    given = arguments(__doc__, rounds=9, batch=4)
    torch.set_num_threads(1)
    rounds = 1 if given.quick else given.rounds
    rows = [row for name in MODELS for row in measured(name, rounds, given.batch)]
    lines = ["# Speed of layers beside the published ones", ""]
    lines += prose(
        f"Images per second of CPU time on one thread, float32, medians of {rounds} interleaved rounds; the ratio with "
        "its lowest and highest round. Forward gives logits, training the gradients by the weights. The difference is "
        "the largest of the logits, in units of their root mean square."
    )
    lines += ["", *table(
        ["network", "pass", "batch", "published", "ours", "ratio", "difference"],
        [
            [
                row["name"],
                row["work"],
                row["batch"],
                f"{row['published']:.1f}",
                f"{row['ours']:.1f}",
                f"**{row['ratio']:.2f}** ({row['lowest']:.2f}-{row['highest']:.2f})",
                f"{row['difference']:.0e}",
            ]
            for row in rows
        ],
        left=2,
    )]  # fmt: skip
    lines += ["", *prose(made_with("robust-models", "timm"))]
    publish(lines, {"rows": rows, "versions": versions("robust-models", "timm")}, given.out)


if __name__ == "__main__":
    main()
