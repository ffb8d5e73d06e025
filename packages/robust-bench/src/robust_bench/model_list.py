"""A YAML file that names several models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

KEYS = ("model", "weights", "pretrained", "num_classes", "in_chans", "name")
"""What is said of a model; the others may be left out."""


def read_models(file: Path) -> list[dict[str, Any]]:
    """Read a YAML list of models; paths of weights are relative to the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no list of models {file}")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(found, list) or not found:
        raise ValueError(f"{file} must hold a list of models, e.g. '- model: timm:resnet18'")
    models = []
    for number, about in enumerate(found, start=1):
        about = {"model": about} if isinstance(about, str) else about
        if not isinstance(about, Mapping) or "model" not in about:
            raise ValueError(f"entry {number} of {file} must have a 'model', got {about!r}")
        if unknown := [key for key in about if key not in KEYS]:
            raise ValueError(f"entry {number} of {file} has {unknown[0]!r}: choose from {', '.join(KEYS)}")
        weights = about.get("weights")
        models.append(dict(about) | ({"weights": file.parent / weights} if weights else {}))
    return models
