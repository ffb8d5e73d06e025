"""The names that others rely on."""

import importlib.metadata

import robust_bench
from robust_bench import benchmarks, corruptions, metrics


def test_the_public_names_are_these():
    assert sorted(robust_bench.__all__) == [
        "EvaluationWarning", "Interrupted", "Result", "Row", "World", "__version__", "benchmarks", "evaluate",
    ]  # fmt: skip
    assert all(hasattr(robust_bench, name) for name in robust_bench.__all__)
    assert callable(robust_bench.evaluate)
    assert benchmarks.names()
    assert all(hasattr(corruptions, name) for name in corruptions.__all__)
    fixed = {
        "aurra", "average_precision", "clopper_pearson", "error_consistency", "flip_probability",
        "mean_corruption_error", "mean_flip_rate", "relative_mean_corruption_error", "rms_calibration_error",
        "shape_bias", "top5_distance",
    }  # fmt: skip
    assert fixed <= set(metrics.__all__)
    assert all(callable(getattr(metrics, name)) for name in fixed)
    assert all(hasattr(metrics, name) for name in metrics.__all__)


def test_the_version_is_that_of_the_distribution():
    assert robust_bench.__version__ == importlib.metadata.version("robust-bench")
