"""Adversarial attacks for PyTorch: exact threats, per-image randomness, the same result at any batch size."""

from importlib.metadata import version

from robust_attacks.fgsm import FGSM as FGSM
from robust_attacks.losses import cross_entropy as cross_entropy
from robust_attacks.losses import dlr as dlr
from robust_attacks.losses import margin as margin
from robust_attacks.losses import succeeded as succeeded
from robust_attacks.losses import targeted as targeted
from robust_attacks.pgd import PGD as PGD
from robust_attacks.random import ImageRandom as ImageRandom
from robust_attacks.threats import L1 as L1
from robust_attacks.threats import L2 as L2
from robust_attacks.threats import Linf as Linf
from robust_attacks.threats import Threat as Threat

__version__ = version("robust-attacks")

__all__ = [
    "FGSM",
    "L1",
    "L2",
    "PGD",
    "ImageRandom",
    "Linf",
    "Threat",
    "cross_entropy",
    "dlr",
    "margin",
    "succeeded",
    "targeted",
]
