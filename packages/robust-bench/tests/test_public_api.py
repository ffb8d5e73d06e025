"""The names that others rely on."""

import importlib.metadata

import robust_bench
from robust_bench import benchmarks, corruptions, metrics


def test_the_public_names_are_these():
    assert sorted(robust_bench.__all__) == [
        "EvaluationWarning", "Result", "Row", "__version__", "benchmarks", "evaluate",
    ]  # fmt: skip
    assert all(hasattr(robust_bench, name) for name in robust_bench.__all__)
    assert callable(robust_bench.evaluate)
    assert benchmarks.names()
    assert all(hasattr(corruptions, name) for name in corruptions.__all__)
    assert metrics.__all__ == ["clopper_pearson"]


def test_the_version_is_that_of_the_distribution():
    assert robust_bench.__version__ == importlib.metadata.version("robust-bench")
