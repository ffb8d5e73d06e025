"""The names that the package offers; a change here is a change for its users."""

import importlib.metadata

import robust_optim


def test_the_public_names_are_exactly_these():
    assert set(robust_optim.__all__) == {
        "AWP",
        "ChosenAlpha",
        "ESAM",
        "GSAM",
        "LookSAM",
        "PowerWarmUp",
        "RatioWarmUp",
        "SAM",
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
    }
    assert all(hasattr(robust_optim, name) for name in robust_optim.__all__)


def test_the_version_is_that_of_the_distribution():
    assert robust_optim.__version__ == importlib.metadata.version("robust-optim")
