"""Training-time augmentations of the robustness literature as batched PyTorch calls with parameters drawn per image."""

from importlib.metadata import version

from robust_augs.apr import APRPair as APRPair
from robust_augs.jsd import jensen_shannon as jensen_shannon
from robust_augs.noise import GaussianNoise as GaussianNoise

__version__ = version("robust-augs")

__all__ = ["APRPair", "GaussianNoise", "__version__", "jensen_shannon"]
