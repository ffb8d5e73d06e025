"""The name under which this package is installed, and its version."""

from importlib import metadata

DISTRIBUTION = "robust-bench"
__version__ = metadata.version(DISTRIBUTION)
