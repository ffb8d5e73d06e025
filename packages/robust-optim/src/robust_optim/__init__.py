"""Sharpness-aware optimisers for PyTorch that wrap any optimizer and resume bit for bit."""

from importlib.metadata import version

from robust_optim.batch_norm import frozen_batch_norm as frozen_batch_norm
from robust_optim.sam import SAM as SAM

__version__ = version("robust-optim")

__all__ = ["SAM", "__version__", "frozen_batch_norm"]
