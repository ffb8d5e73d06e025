"""The names that the package offers; a change here is a change for its users."""

import importlib.metadata

import robust_models

PUBLIC = ["Entry", "LoadReport", "Normalize", "NormalizedModel", "SmallCNN", "__version__"]
PUBLIC += ["build_model", "build_transform", "create_model", "download", "export", "get_entry", "get_normalization"]
PUBLIC += ["list_models", "load_weights", "pretrained", "register_entry", "save_weights"]


def test_the_public_names_are_exactly_these():
    assert robust_models.__all__ == PUBLIC
    assert all(hasattr(robust_models, name) for name in PUBLIC)


def test_the_version_is_that_of_the_distribution():
    assert robust_models.__version__ == importlib.metadata.version("robust-models")
