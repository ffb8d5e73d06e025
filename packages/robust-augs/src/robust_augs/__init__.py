"""Training-time augmentations of the robustness literature as batched PyTorch calls with parameters drawn per image."""

from robust_augs.apr import APRPair as APRPair
from robust_augs.jsd import jensen_shannon as jensen_shannon
from robust_augs.noise import GaussianNoise as GaussianNoise

__all__ = ["APRPair", "GaussianNoise", "jensen_shannon"]
