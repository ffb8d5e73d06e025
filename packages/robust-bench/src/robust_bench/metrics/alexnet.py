"""What AlexNet does on ImageNet-C and ImageNet-P: the baseline that corruption errors and flip rates are divided by.

The model is torchvision's AlexNet on the published files. Only the test sets of Hendrycks & Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019, arXiv:1903.12261, have these baselines:
CIFAR-C and CIFAR-P have none. AlexNet's top-5 distances are not here, for want of a source (see `mean_top5_distance`).
"""

from collections.abc import Mapping
from types import MappingProxyType

ALEXNET_ERRORS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
        "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
        "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
        "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
        "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
        "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
        "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
        "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
        "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
        "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
        "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
        "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
        "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
        "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
        "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
    }
)
"""Top-1 errors on the 15 corruptions of ImageNet-C, in the published order, at severities 1..5; fractions.

Source: hendrycks/robustness, issue #10; their means are the constants of the AugMix code (Hendrycks et al., "AugMix: A
Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020, arXiv:1912.02781).
"""

ALEXNET_CLEAN_ERROR = 0.43478
"""Top-1 error on the clean validation images of ImageNet, a fraction; the same source."""

ALEXNET_FLIP_PROBABILITIES: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.2365,
        "shot_noise": 0.3006,
        "motion_blur": 0.0930,
        "zoom_blur": 0.0594,
        "snow": 0.1193,
        "brightness": 0.0489,
        "translate": 0.1101,
        "rotate": 0.1310,
        "tilt": 0.0705,
        "scale": 0.2353,
    }
)
"""Flip probabilities on the 10 perturbations of ImageNet-P at difficulty 1; fractions.

Known to four digits: with them the flip probabilities in the results of Orhan, "Robustness properties of Facebook's
ResNeXt WSL models", 2019, arXiv:1907.07640, give the mean flip rates of that paper to .05 points.
"""
