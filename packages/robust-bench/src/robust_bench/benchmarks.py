"""Named benchmarks: a data set and the conditions under which a model is looked at.

Examples:
    >>> names()
    ('digits', 'digits-c', 'digits-pgd', 'digits-autoattack', 'folder', 'folder-c', 'folder-pgd', 'folder-autoattack')
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from robust_attacks import L1, L2, PGD, Linf, Threat, auto_attack
from torch.utils.data import Dataset

from robust_bench.conditions import Attacked, Clean, Condition, Corrupted, Suite
from robust_bench.corruptions import CORRUPTIONS, preset_for
from robust_bench.datasets import digits, folder
from robust_bench.preprocess import Preprocess

Norm = Literal["Linf", "L2", "L1"]
_SEVERITIES = (1, 2, 3, 4, 5)
_THREATS: Mapping[str, Callable[..., Threat]] = {"Linf": Linf, "L2": L2, "L1": L1}

# In [0, 1] units. The digits have 17 grey levels; the folder's are multiples of a grey level of 8-bit images.
_EPS = {"digits": (0.05, 0.1, 0.15, 0.2, 0.3), "folder": (1 / 255, 2 / 255, 4 / 255, 8 / 255)}
_AUTOATTACK_EPS = {"digits": 0.15, "folder": 4 / 255}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """PGD at several sizes of the perturbation.

    Args:
        norm: of the perturbation.
        eps: its largest sizes, or one, in units of [0, 1] pixels; None means the benchmark's own, which are for Linf.
        steps: gradient steps.
        restarts: how often an image is attacked from a new random start; the worst counts.
        step_size: length of a step; None means 2.5 eps / steps.
    """

    norm: Norm = "Linf"
    eps: float | tuple[float, ...] | None = None
    steps: int = 20
    restarts: int = 3
    step_size: float | None = None

    def conditions(self, default_eps: tuple[float, ...]) -> tuple[Attacked, ...]:
        """Make one condition per eps.

        Raises:
            ValueError: if another norm than Linf has no eps, the list of eps is empty, or PGD refuses a setting.
        """
        given = self.eps
        if given is None:
            if self.norm != "Linf":
                raise ValueError(_no_eps(self.norm))
            given = default_eps
        eps = tuple(dict.fromkeys((given,) if isinstance(given, int | float) else given))
        if not eps:
            raise ValueError("give at least one eps, e.g. [0.1]")
        return tuple(
            Attacked(
                attack=PGD(
                    threat=_threat(self.norm, value),
                    steps=self.steps,
                    restarts=self.restarts,
                    step_size=self.step_size,
                )
            )
            for value in eps
        )


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack, or its quick screen.

    Args:
        norm: of the perturbation.
        eps: its largest size, in units of [0, 1] pixels; None means the benchmark's own, which is for Linf.
        version: "standard", "plus", "rand" for models that randomise, or "fast", a screen.
    """

    norm: Norm = "Linf"
    eps: float | None = None
    version: Literal["standard", "plus", "rand", "fast"] = "standard"

    def condition(self, default_eps: float) -> Suite:
        """Make the condition.

        Raises:
            ValueError: if another norm than Linf has no eps, or the settings do not fit together.
        """
        threat = _threat(self.norm, default_eps if self.eps is None and self.norm == "Linf" else self.eps)
        return Suite(suite=auto_attack(threat, self.version))


def _no_eps(norm: str) -> str:
    if norm not in _THREATS:
        return f"unknown norm {norm!r}: choose from {', '.join(_THREATS)}"
    return f"give eps for the norm {norm}, e.g. [0.5]: the benchmark's own are for Linf"


def _threat(norm: str, eps: float | None) -> Threat:
    if eps is None or norm not in _THREATS:
        raise ValueError(_no_eps(norm))
    return _THREATS[norm](eps=eps)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Data and conditions under one name.

    Args:
        name: as in `names()`.
        dataset: name of the data, which benchmarks with other conditions share, e.g. "digits" of "digits-c"; None
            means the benchmark's own name.
        data: a data set of (image, label) pairs, float images in [0, 1].
        conditions: what is done to the images.
        num_classes: number of classes in the data.
        in_chans: channels of the images.
        settings: what the data is and how it was preprocessed, as JSON values.
    """

    name: str
    dataset: str | None = None
    data: Dataset[Any]
    conditions: tuple[Condition, ...] = (Clean(),)
    num_classes: int
    in_chans: int
    settings: Mapping[str, Any] = field(default_factory=dict)


ABOUT: Mapping[str, str] = {
    "digits": "450 handwritten digits of 8 x 8 pixels that come with scikit-learn; accuracy on the clean images",
    "digits-c": f"the digits under {len(CORRUPTIONS)} corruptions at severities 1 to 5",
    "digits-pgd": "the digits under PGD-20 with 3 restarts at several eps",
    "digits-autoattack": "the digits under AutoAttack standard at eps 0.15",
    "folder": "images in DIR/<class>/<image>; accuracy on the clean images (needs --data DIR)",
    "folder-c": f"the same under {len(CORRUPTIONS)} corruptions at severities 1 to 5 (needs --data DIR)",
    "folder-pgd": "the same under PGD-20 with 3 restarts at several eps (needs --data DIR)",
    "folder-autoattack": "the same under AutoAttack standard at eps 4/255 (needs --data DIR)",
}


def names() -> tuple[str, ...]:
    """Name the benchmarks."""
    return tuple(ABOUT)


def dataset(name: str) -> str:
    """Name the data set of a benchmark, which those with other conditions share.

    Raises:
        ValueError: for an unknown name.

    Examples:
        >>> dataset("digits-pgd")
        'digits'
    """
    if name not in ABOUT:
        raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(ABOUT)}")
    return name.partition("-")[0]


def load(
    name: str,
    data: str | Path | None = None,
    *,
    preprocess: Preprocess | None = None,
    attack: Sweep | None = None,
    autoattack: AutoAttack | None = None,
) -> Benchmark:
    """Build a benchmark.

    Args:
        name: one of `names()`.
        data: the folder of `folder` and its kin, with images in `<class>/<image>`.
        preprocess: how the folder's images are resized and cropped; None means 224 from 256. It is the model's own
            choice: `preprocess.declared(model)`.
        attack: the settings of the `-pgd` benchmarks.
        autoattack: the settings of the `-autoattack` benchmarks.

    Raises:
        ValueError: for an unknown name, or if `data` is missing, given in vain, or holds no images.
        FileNotFoundError: if there is no such folder.

    Examples:
        >>> benchmark = load("digits-c")
        >>> len(benchmark.conditions), len(benchmark.data)
        (21, 450)
    """
    family, kind = dataset(name), name.partition("-")[2]
    root = _root(name, data)
    source: Dataset[Any]
    if root is None:
        source, classes, channels, side = digits("test"), 10, 1, 8
        about: dict[str, Any] = {"dataset": "digits (scikit-learn), test part", "preprocessing": "none"}
    else:
        chosen = preprocess or Preprocess()
        opened = folder(root, preprocess=chosen)
        source, classes, channels, side = opened, len(opened.classes), 3, chosen.size
        about = {"dataset": "folder", "path": str(data), "preprocessing": chosen.settings}
    conditions: tuple[Condition, ...] = (Clean(),)
    if kind == "c":
        preset = preset_for(side, side)
        conditions += tuple(
            Corrupted(corruption=corruption, severity=severity, preset=preset)
            for corruption in CORRUPTIONS
            for severity in _SEVERITIES
        )
    elif kind == "pgd":
        conditions += (attack or Sweep()).conditions(_EPS[family])
    elif kind == "autoattack":
        conditions += ((autoattack or AutoAttack()).condition(_AUTOATTACK_EPS[family]),)
    return Benchmark(
        name=name,
        dataset=family,
        data=source,
        conditions=conditions,
        num_classes=classes,
        in_chans=channels,
        settings=about | {"classes": classes},
    )


def _root(name: str, data: str | Path | None) -> Path | None:
    if dataset(name) == "folder":
        if data is None:
            raise ValueError(f"the benchmark {name!r} needs a folder of images <class>/<image>: give data (--data DIR)")
        return Path(data)
    if data is not None:
        raise ValueError(f"the benchmark {name!r} brings its own images, so {str(data)!r} is in vain: leave --data out")
    return None
