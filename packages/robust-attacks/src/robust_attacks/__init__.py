"""Adversarial attacks for PyTorch: exact threats, per-image randomness, the same result at any batch size."""

from importlib.metadata import version

from robust_attacks._verify import exact_arithmetic as exact_arithmetic
from robust_attacks.apgd import APGD as APGD
from robust_attacks.auto_attack import auto_attack as auto_attack
from robust_attacks.carlini_wagner import CarliniWagner as CarliniWagner
from robust_attacks.closest import Closest as Closest
from robust_attacks.ddn import DDN as DDN
from robust_attacks.deepfool import DeepFool as DeepFool
from robust_attacks.discrete import Discrete as Discrete
from robust_attacks.fab import FAB as FAB
from robust_attacks.fgsm import FGSM as FGSM
from robust_attacks.fmn import FMN as FMN
from robust_attacks.losses import cross_entropy as cross_entropy
from robust_attacks.losses import dlr as dlr
from robust_attacks.losses import margin as margin
from robust_attacks.losses import succeeded as succeeded
from robust_attacks.losses import targeted as targeted
from robust_attacks.losses import targeted_dlr as targeted_dlr
from robust_attacks.masked import Masked as Masked
from robust_attacks.mifgsm import MIFGSM as MIFGSM
from robust_attacks.nfgsm import NFGSM as NFGSM
from robust_attacks.patch import AdversarialPatch as AdversarialPatch
from robust_attacks.patch_fool import PatchFool as PatchFool
from robust_attacks.patch_noise import NoisyPatches as NoisyPatches
from robust_attacks.patch_noise import OccludedPatches as OccludedPatches
from robust_attacks.patch_pgd import PatchPGD as PatchPGD
from robust_attacks.patch_sensitivity import patch_sensitivity as patch_sensitivity
from robust_attacks.pgd import PGD as PGD
from robust_attacks.pyramid import Pyramid as Pyramid
from robust_attacks.random import ImageRandom as ImageRandom
from robust_attacks.report import Report as Report
from robust_attacks.square import Square as Square
from robust_attacks.threats import L1 as L1
from robust_attacks.threats import L2 as L2
from robust_attacks.threats import Linf as Linf
from robust_attacks.threats import Threat as Threat
from robust_attacks.transfer import TransferAttack as TransferAttack
from robust_attacks.transfer import transfer as transfer
from robust_attacks.universal import Universal as Universal
from robust_attacks.universal_patch import UniversalPatch as UniversalPatch
from robust_attacks.worst_case import WorstCase as WorstCase

__version__ = version("robust-attacks")

__all__ = [
    "APGD",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "L1",
    "L2",
    "MIFGSM",
    "NFGSM",
    "PGD",
    "AdversarialPatch",
    "CarliniWagner",
    "Closest",
    "DeepFool",
    "Discrete",
    "ImageRandom",
    "Linf",
    "Masked",
    "NoisyPatches",
    "OccludedPatches",
    "PatchFool",
    "PatchPGD",
    "Pyramid",
    "Report",
    "Square",
    "Threat",
    "TransferAttack",
    "Universal",
    "UniversalPatch",
    "WorstCase",
    "auto_attack",
    "cross_entropy",
    "dlr",
    "exact_arithmetic",
    "margin",
    "patch_sensitivity",
    "succeeded",
    "targeted",
    "targeted_dlr",
    "transfer",
]
