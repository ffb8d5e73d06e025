"""What is loaded with the package: a command must not wait for what it does not use."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["robust_bench", "robust_bench.cli"])
def test_heavy_libraries_are_loaded_when_they_are_used(module):
    heavy = "timm", "torchvision", "sklearn", "pyarrow", "av", "pandas", "datasets", "scipy.stats", "matplotlib"
    code = f"import {module}, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
