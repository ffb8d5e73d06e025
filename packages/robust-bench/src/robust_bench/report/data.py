"""What a result says of the images that a row was measured on."""

from collections.abc import Mapping
from typing import Any

from robust_bench.result import Result

_OF_MODEL_OR_MACHINE = frozenset({"preprocessing", "path", "images", "of", "skipped", "damaged", "sha256"})


def described(result: Result, benchmark: str) -> Mapping[str, Any]:
    """Give what is said of the data of a benchmark; nothing is known of foreign results."""
    data = result.settings.get("data")
    known = data.get(benchmark) if isinstance(data, Mapping) else None
    return known if isinstance(known, Mapping) else {}


def own_folder(known: Mapping[str, Any]) -> str:
    """Name the folder of images of the user's own, which nothing else tells from other folders; else nothing."""
    own = known.get("dataset") == "folder" or "reader" in known
    return str(known["path"]) if own and "path" in known else ""


def protocol(known: Mapping[str, Any]) -> dict[str, Any]:
    """Give what makes numbers comparable: neither where the files lie, nor the model's own resize and crop."""
    return {key: value for key, value in known.items() if key not in _OF_MODEL_OR_MACHINE}


def resized(known: Mapping[str, Any]) -> str:
    """Say how files that have their final size were resized for a model of another one; else nothing."""
    how = known.get("preprocessing")
    if not isinstance(how, Mapping) or "stored" not in how or how.get("size") == how["stored"]:
        return ""
    return str(how.get("steps", f"{how.get('size')} from {how['stored']}"))


def steps(known: Mapping[str, Any]) -> str:
    """Say in words how the images were preprocessed."""
    how = known.get("preprocessing")
    if isinstance(how, Mapping):
        return str(how.get("steps", dict(how)))
    return "" if how is None else str(how)
