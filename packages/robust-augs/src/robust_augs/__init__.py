"""Training-time augmentations of the robustness literature as batched PyTorch calls with parameters drawn per image."""

from importlib.metadata import version

from robust_augs import recipes as recipes
from robust_augs.adversarial_noise import AdversarialNoise as AdversarialNoise
from robust_augs.apr import APRPair as APRPair
from robust_augs.apr import APRSingle as APRSingle
from robust_augs.augmax import AugMax as AugMax
from robust_augs.augmix import AugMix as AugMix
from robust_augs.color import RandomColor as RandomColor
from robust_augs.cross_style import CrossStyle as CrossStyle
from robust_augs.deepaugment import DeepAugment as DeepAugment
from robust_augs.diffeomorphism import Diffeomorphism as Diffeomorphism
from robust_augs.filter import RandomFilter as RandomFilter
from robust_augs.jsd import jensen_shannon as jensen_shannon
from robust_augs.loader import AugmentedLoader as AugmentedLoader
from robust_augs.noise import GaussianNoise as GaussianNoise
from robust_augs.noise2net import Noise2Net as Noise2Net
from robust_augs.noise_generator import NoiseGenerator as NoiseGenerator
from robust_augs.occlusion import PatchOcclusion as PatchOcclusion
from robust_augs.patch_gaussian import PatchGaussian as PatchGaussian
from robust_augs.patchwise import Patchwise as Patchwise
from robust_augs.per_image import PerImage as PerImage
from robust_augs.prime import PRIME as PRIME
from robust_augs.random_style import InceptionInput as InceptionInput
from robust_augs.random_style import RandomStyle as RandomStyle
from robust_augs.style import StyleTransfer as StyleTransfer
from robust_augs.style import adain as adain
from robust_augs.style_bank import StyleBank as StyleBank
from robust_augs.stylise_folder import stylise_folder as stylise_folder
from robust_augs.stylised_folder import StylisedFolder as StylisedFolder
from robust_augs.three_augment import ThreeAugment as ThreeAugment

__version__ = version("robust-augs")

__all__ = [
    "PRIME",
    "APRPair",
    "APRSingle",
    "AdversarialNoise",
    "AugMax",
    "AugMix",
    "AugmentedLoader",
    "CrossStyle",
    "DeepAugment",
    "Diffeomorphism",
    "GaussianNoise",
    "InceptionInput",
    "Noise2Net",
    "NoiseGenerator",
    "PatchGaussian",
    "PatchOcclusion",
    "Patchwise",
    "PerImage",
    "RandomColor",
    "RandomFilter",
    "RandomStyle",
    "StyleBank",
    "StyleTransfer",
    "StylisedFolder",
    "ThreeAugment",
    "__version__",
    "adain",
    "jensen_shannon",
    "recipes",
    "stylise_folder",
]
