"""The names that the package offers; a change here is a change for its users."""

import importlib.metadata
import subprocess
import sys

import robust_viz


def test_the_public_names_are_exactly_these():
    assert set(robust_viz.__all__) == {
        "AccuracyCurve",
        "BoundaryGrid",
        "DecisionBoundary",
        "__version__",
        "accuracy_curves",
        "accuracy_vs_eps",
        "add_figure",
        "corruption_heatmap",
        "decision_boundaries",
        "decision_boundary",
        "write_figures",
    }
    assert all(hasattr(robust_viz, name) for name in robust_viz.__all__)


def test_the_version_is_that_of_the_distribution():
    assert robust_viz.__version__ == importlib.metadata.version("robust-viz")


def test_neither_pyplot_nor_robust_bench_nor_timm_is_imported():
    code = (
        "import sys, robust_viz, robust_viz.cli;"
        "print([name for name in ('matplotlib.pyplot', 'robust_bench', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
