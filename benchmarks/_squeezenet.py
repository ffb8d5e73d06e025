"""A real ImageNet classifier that is small enough for a CPU, as a factory for `robust-bench run --model`."""

from pathlib import Path

import torch
from robust_models import Normalize
from torch import nn
from torchvision.models import squeezenet1_0

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "parity" / "squeezenet_imagenet"


def build() -> nn.Module:
    """SqueezeNet 1.0 with the weights of Deep Compression (Han et al., ICLR 2016, arXiv:1510.00149)."""
    network = squeezenet1_0()
    network.load_state_dict(torch.load(FOLDER / "weights.pt", weights_only=True))
    mean, std = tuple(value / 255 for value in (123, 117, 104)), (1 / 255,) * 3
    model = nn.Sequential(Normalize(mean=mean, std=std), network)
    model.pretrained_cfg = {"input_size": (3, 227, 227), "crop_pct": 227 / 256, "interpolation": "bilinear"}
    return model.eval()
