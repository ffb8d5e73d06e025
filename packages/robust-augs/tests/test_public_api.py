"""The names that the package offers; a change here is a change for its users."""

import importlib.metadata

import robust_augs


def test_the_public_names_are_exactly_these():
    assert set(robust_augs.__all__) == {
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
    }
    assert all(hasattr(robust_augs, name) for name in robust_augs.__all__)


def test_the_version_is_that_of_the_distribution():
    assert robust_augs.__version__ == importlib.metadata.version("robust-augs")
