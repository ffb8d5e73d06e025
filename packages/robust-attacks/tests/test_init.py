import importlib.metadata

import robust_attacks

PUBLIC = ["FGSM", "L1", "L2", "PGD", "ImageRandom", "Linf", "Threat"]
PUBLIC += ["cross_entropy", "dlr", "margin", "succeeded", "targeted"]


def test_the_public_names_are_these():
    """A change here is a change for the users: write it into the changelog."""
    assert robust_attacks.__all__ == PUBLIC
    assert all(hasattr(robust_attacks, name) for name in PUBLIC)


def test_the_version_is_that_of_the_distribution():
    assert robust_attacks.__version__ == importlib.metadata.version("robust-attacks")
