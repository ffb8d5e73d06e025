"""Sharpness-aware optimisers for PyTorch that wrap any optimizer and resume bit for bit, and weight averages."""

from importlib.metadata import version

from robust_optim.averaging import WeightAverage as WeightAverage
from robust_optim.awp import AWP as AWP
from robust_optim.batch_norm import frozen_batch_norm as frozen_batch_norm
from robust_optim.batch_norm import reestimate_batch_norm as reestimate_batch_norm
from robust_optim.decay import PowerWarmUp as PowerWarmUp
from robust_optim.decay import RatioWarmUp as RatioWarmUp
from robust_optim.decay import equal_weights as equal_weights
from robust_optim.esam import ESAM as ESAM
from robust_optim.gsam import GSAM as GSAM
from robust_optim.interpolation import ChosenAlpha as ChosenAlpha
from robust_optim.interpolation import choose_alpha as choose_alpha
from robust_optim.interpolation import interpolate as interpolate
from robust_optim.looksam import LookSAM as LookSAM
from robust_optim.sam import SAM as SAM
from robust_optim.soups import Soup as Soup
from robust_optim.soups import greedy_soup as greedy_soup
from robust_optim.soups import uniform_soup as uniform_soup
from robust_optim.two_pass import TwoPass as TwoPass

__version__ = version("robust-optim")

__all__ = [
    "AWP",
    "ESAM",
    "GSAM",
    "SAM",
    "ChosenAlpha",
    "LookSAM",
    "PowerWarmUp",
    "RatioWarmUp",
    "Soup",
    "TwoPass",
    "WeightAverage",
    "__version__",
    "choose_alpha",
    "equal_weights",
    "frozen_batch_norm",
    "greedy_soup",
    "interpolate",
    "reestimate_batch_norm",
    "uniform_soup",
]
