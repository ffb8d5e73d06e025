"""Image classifiers that take images in [0, 1]: timm models with the mean/std step inside, weights that load safely."""

from importlib.metadata import version

from robust_models.create import create_model as create_model
from robust_models.normalize import Normalize as Normalize
from robust_models.normalize import NormalizedModel as NormalizedModel
from robust_models.normalize import get_normalization as get_normalization
from robust_models.small_cnn import SmallCNN as SmallCNN
from robust_models.weights import LoadReport as LoadReport
from robust_models.weights import load_weights as load_weights
from robust_models.weights import save_weights as save_weights

__version__ = version("robust-models")

__all__ = [
    "LoadReport",
    "Normalize",
    "NormalizedModel",
    "SmallCNN",
    "__version__",
    "create_model",
    "get_normalization",
    "load_weights",
    "save_weights",
]
