"""Robust training of image models as one visible loop: recipes, adversarial objectives, exact resume."""

from importlib.metadata import version

from robust_train import recipes as recipes
from robust_train._fields import RecipeError as RecipeError
from robust_train.checkpoint import CheckpointWarning as CheckpointWarning
from robust_train.checkpoint import ResumeError as ResumeError
from robust_train.config import Recipe as Recipe
from robust_train.diverged import Diverged as Diverged
from robust_train.errors import SetupError as SetupError
from robust_train.interrupt import Interrupted as Interrupted
from robust_train.loop import Report as Report
from robust_train.loop import train as train

__version__ = version("robust-train")

__all__ = [
    "CheckpointWarning",
    "Diverged",
    "Interrupted",
    "Recipe",
    "RecipeError",
    "Report",
    "ResumeError",
    "SetupError",
    "recipes",
    "train",
]
