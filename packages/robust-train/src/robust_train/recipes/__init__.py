"""Named recipes: complete sets of hyper-parameters with their source, one YAML file each beside this module."""

import difflib
import os
from importlib import resources
from pathlib import Path

from robust_train._fields import RecipeError as RecipeError
from robust_train.config import Recipe as Recipe

__all__ = ["Recipe", "RecipeError", "load", "names", "text"]


def names() -> tuple[str, ...]:
    """The names of the recipes in the package.

    Examples:
        >>> "digits-fgsm-rs" in names()
        True
    """
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def text(name: str | os.PathLike[str]) -> str:
    """The YAML of a recipe as it was written, with its comments.

    Args:
        name: one of `names()`, or the path of a file that ends in `.yaml` or `.yml`.

    Raises:
        RecipeError: if no recipe has this name, or the file is no text.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(name, os.PathLike) or str(name).endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise FileNotFoundError(
                f"no recipe file {name}: give a path to a YAML file, or one of {', '.join(names())}"
            )
        try:
            return Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{name} is no text in UTF-8 ({error})") from error
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecipeError(f"no recipe is called {name!r}{hint}: there are {', '.join(names())}, or give a .yaml file")
    return resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load(name: str | os.PathLike[str]) -> Recipe:
    """Read a recipe by name or from a file.

    Args:
        name: one of `names()`, or the path of a file that ends in `.yaml` or `.yml`.

    Raises:
        RecipeError: if no recipe has this name, or the file is not a complete and valid recipe.
        FileNotFoundError: if there is no such file.

    Examples:
        >>> load("digits-fgsm-rs").replace(epochs=5).epochs
        5
    """
    content = text(name)
    try:
        return Recipe.from_yaml(content)
    except RecipeError as error:
        raise RecipeError(f"{name}: {error}") from error
