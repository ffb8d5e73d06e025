"""The names that the package offers; a change here is a change for its users."""

import robust_augs


def test_the_public_names_are_exactly_these():
    assert set(robust_augs.__all__) == {"APRPair", "GaussianNoise", "jensen_shannon"}
    assert all(hasattr(robust_augs, name) for name in robust_augs.__all__)
