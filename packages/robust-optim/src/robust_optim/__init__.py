"""Sharpness-aware optimisers for PyTorch that wrap any optimizer and resume bit for bit."""

from importlib.metadata import version

from robust_optim.awp import AWP as AWP
from robust_optim.batch_norm import frozen_batch_norm as frozen_batch_norm
from robust_optim.esam import ESAM as ESAM
from robust_optim.gsam import GSAM as GSAM
from robust_optim.looksam import LookSAM as LookSAM
from robust_optim.sam import SAM as SAM
from robust_optim.two_pass import TwoPass as TwoPass

__version__ = version("robust-optim")

__all__ = ["AWP", "ESAM", "GSAM", "SAM", "LookSAM", "TwoPass", "__version__", "frozen_batch_norm"]
