"""The versions that a result depends on."""

import functools
import platform
from collections.abc import Mapping
from importlib import metadata
from types import MappingProxyType

from robust_bench._distribution import DISTRIBUTION

_NAMES = ("torch", "timm", "numpy", "scikit-learn", "pillow", "robust-attacks", "robust-models", DISTRIBUTION)


@functools.cache
def versions() -> Mapping[str, str]:
    """Give the versions of Python and of the packages that a result depends on."""
    return MappingProxyType({"python": platform.python_version()} | {name: metadata.version(name) for name in _NAMES})
