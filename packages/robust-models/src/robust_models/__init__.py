"""Robust image classifiers that take images in [0, 1]: architectures, layers, and published weights."""

from importlib.metadata import version

from robust_models.create import create_model as create_model
from robust_models.download import download as download
from robust_models.normalize import Normalize as Normalize
from robust_models.normalize import NormalizedModel as NormalizedModel
from robust_models.normalize import get_normalization as get_normalization
from robust_models.registry import Entry as Entry
from robust_models.registry import get_entry as get_entry
from robust_models.registry import list_models as list_models
from robust_models.registry import register_entry as register_entry
from robust_models.small_cnn import SmallCNN as SmallCNN
from robust_models.weights import LoadReport as LoadReport
from robust_models.weights import load_weights as load_weights
from robust_models.weights import save_weights as save_weights
from robust_models.zoo import build_model as build_model
from robust_models.zoo import build_transform as build_transform
from robust_models.zoo import export as export
from robust_models.zoo import pretrained as pretrained

__version__ = version("robust-models")

__all__ = [
    "Entry",
    "LoadReport",
    "Normalize",
    "NormalizedModel",
    "SmallCNN",
    "__version__",
    "build_model",
    "build_transform",
    "create_model",
    "download",
    "export",
    "get_entry",
    "get_normalization",
    "list_models",
    "load_weights",
    "pretrained",
    "register_entry",
    "save_weights",
]
