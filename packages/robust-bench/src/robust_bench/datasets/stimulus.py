"""What the names of the pictures of the 17 model-vs-human sets say.

Geirhos et al., "Partial success in closing the gap between human and machine vision", NeurIPS 2021, arXiv:2106.07411;
the names as in bethgelab/model-vs-human. They come in two forms:

| sets | file |
|---|---|
| edge, silhouette, cue-conflict | `<category>/<name>.png` |
| sketch, stylized and the 12 with conditions | `<number>_<code>_<observer>_<condition>_<category>_<rest>.png` |

A picture of cue-conflict is called `<shape><i>-<texture><j>.png`: cat7-elephant1.png is a cat with the skin of an
elephant, and its category is the shape.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from robust_bench.metrics.entry_level import ENTRY_LEVEL_CLASSES

CATEGORIES = tuple(ENTRY_LEVEL_CLASSES)
"""The 16 entry-level classes in alphabetical order: the label of a picture is the position of its category."""

IMAGES: Mapping[str, int] = MappingProxyType(
    {"sketch": 800, "stylized": 800, "edge": 160, "silhouette": 160, "cue-conflict": 1280}
    | dict.fromkeys(("colour", "contrast", "high-pass", "low-pass"), 1280)
    | dict.fromkeys(("phase-scrambling", "power-equalisation", "false-colour"), 1120)
    | dict.fromkeys(("rotation", "eidolonI", "eidolonII", "eidolonIII", "uniform-noise"), 1280)
)
"""How many pictures each of the 17 sets has, counted in the published answers of models."""

IN_CATEGORY_FOLDERS = ("edge", "silhouette", "cue-conflict")
"""The sets whose pictures lie in a folder of their category; the names of all others have fields."""

NO_CONDITION = "0"
"""The one condition of a set without parameters."""

ENDINGS = (".png", ".jpg", ".jpeg")
"""Of the files of pictures."""

_CUES = re.compile(r"([a-z]+)\d+-([a-z]+)\d+")


@dataclass(frozen=True, kw_only=True)
class Stimulus:
    """One picture.

    Args:
        id: what people and models saw alike, free of numbers of sessions and trials, e.g. "n03041632_7380".
        category: what it shows, the shape in cue-conflict; one of `CATEGORIES`.
        condition: how it was changed, as `condition_name` writes it.
        texture: the other cue, in cue-conflict only.
    """

    id: str
    category: str
    condition: str
    texture: str | None = None


def condition_name(text: str) -> str:
    """Write a condition in one way, however files and tables of numbers have written it.

    File names have "0.00", "0.60" and "true" where the tables of the paper's code have 0.0, 0.6 and True, and the
    published answers of models have "NaN" where there is only one condition.

    Examples:
        >>> [condition_name(text) for text in ("0.60", "3.0", "inf", "True", "c05", "1-10-10", "NaN")]
        ['0.6', '3', 'inf', 'true', 'c05', '1-10-10', '0']
    """
    plain = text.strip()
    try:
        value = float(plain)
    except ValueError:
        return plain.lower() if plain.lower() in ("true", "false") else plain or NO_CONDITION
    return NO_CONDITION if math.isnan(value) else f"{value:g}"


def stimulus_id(name: str) -> str:
    """Name a picture alike in the files of models and of people, whose names begin with other numbers and codes.

    It is the last field of the name, with the field before it where that is the WordNet id of an ImageNet picture.

    Examples:
        >>> stimulus_id("0001_cop_dnn_c30_knife_10_n03041632_7380.png")
        'n03041632_7380'
        >>> stimulus_id("0001_edg_s01_0_oven_00_oven10.png") == stimulus_id("oven/oven10.png") == "oven10"
        True
    """
    last = PurePosixPath(name).name
    if last.lower().endswith(ENDINGS):
        last = last.rpartition(".")[0]
    fields = last.split("_")
    return "_".join(fields[-2:] if len(fields) > 1 and re.fullmatch(r"n\d{8}", fields[-2]) else fields[-1:])


def cues(picture: str) -> tuple[str, str]:
    """Give the shape and the texture of a cue-conflict picture.

    Raises:
        ValueError: if its id is not `<shape><i>-<texture><j>`, with two of `CATEGORIES`.

    Examples:
        >>> cues("cat7-elephant1")
        ('cat', 'elephant')
    """
    found = _CUES.fullmatch(picture)
    if found is None or found[1] not in CATEGORIES or found[2] not in CATEGORIES:
        raise ValueError(
            f"a cue-conflict picture is called <shape><i>-<texture><j>, as in cat7-elephant1, got {picture!r}: shape "
            f"and texture are among {', '.join(CATEGORIES)}"
        )
    return found[1], found[2]


def stimulus(dataset: str, name: str) -> Stimulus:
    """Read what the name of a picture's file says.

    Args:
        dataset: name of the set, one of `IMAGES`.
        name: of the file, with its folder for the sets that lie in folders of their category.

    Raises:
        ValueError: if the set is unknown, or the name has another form.

    Examples:
        >>> stimulus("uniform-noise", "1126_nse_dnn_0.10_oven_10_n04111531_9831.png")
        Stimulus(id='n04111531_9831', category='oven', condition='0.1', texture=None)
        >>> stimulus("cue-conflict", "cat/cat7-elephant1.png")
        Stimulus(id='cat7-elephant1', category='cat', condition='0', texture='elephant')
    """
    if dataset not in IMAGES:
        raise ValueError(f"unknown set {dataset!r}: choose from {', '.join(IMAGES)}")
    path = PurePosixPath(name)
    if dataset in IN_CATEGORY_FOLDERS:
        form, category, condition = "<category>/<name>.png", path.parent.name, NO_CONDITION
    else:
        form = "<number>_<code>_<observer>_<condition>_<category>_<rest>.png"
        fields = path.name.split("_")
        category, condition = (fields[4], condition_name(fields[3])) if len(fields) > 5 else ("", "")
    if category not in CATEGORIES:
        raise ValueError(
            f"a picture of the set {dataset} lies in {form}, with a category among {', '.join(CATEGORIES)}, got {name}"
        )
    picture = stimulus_id(name)
    shape, texture = cues(picture) if dataset == "cue-conflict" else (category, None)
    if shape != category:
        raise ValueError(f"the shape of {name} is {shape}, but it lies in the folder of {category}")
    return Stimulus(id=picture, category=category, condition=condition, texture=texture)
