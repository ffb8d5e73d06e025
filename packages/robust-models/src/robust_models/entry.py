"""One set of published weights: what it is, where it lies, and which numbers were printed for it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

LOWER_IS_BETTER = ("_mce", "_mfr")


@dataclass(frozen=True, kw_only=True)
class Threat:
    """What the weights were trained against, as printed.

    Attributes:
        norm: "Linf", "L2", ...
        eps: the radius in units of [0, 1] pixels, as printed: "4/255", "0.5", or why it is not known.
    """

    norm: str
    eps: str

    def __post_init__(self) -> None:
        _check_text(self, "norm", "eps")

    def __str__(self) -> str:
        return f"{self.norm} {self.eps}"

    @property
    def radius(self) -> float | None:
        """`eps` as a number, None where none was printed."""
        try:
            return float(Fraction(self.eps))
        except (ValueError, ZeroDivisionError):
            return None


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How the images of the printed evaluation were made.

    Attributes:
        mean, std: one value per channel, in units of [0, 1] pixels.
        input_size: height and width in pixels.
        crop_pct: the share of the shorter side that the centre crop keeps.
        interpolation: "bicubic", "bilinear", or "none" where images are not resized.
        input_range: range of the pixels before mean and std.
        confirmed: False where the authors did not print it.
        note: what is uncertain about it.
        robustbench_preprocessing: RobustBench's name of it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int = 224
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    input_range: tuple[float, float] = (0, 1)
    confirmed: bool = False
    note: str | None = None
    robustbench_preprocessing: str | None = None

    def __post_init__(self) -> None:
        _check_text(self, "interpolation")
        _check_text(self, "note", "robustbench_preprocessing", optional=True)
        for name in ("mean", "std", "input_range"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values or not all(_is_number(value) for value in values):
                raise ValueError(f"{name} takes one number per channel, got {values!r}")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(f"mean and std need one value per channel each, std positive: {self.mean}, {self.std}")
        if not _is_count(self.input_size):
            raise ValueError(f"input_size is a number of pixels, got {self.input_size!r}")
        if not _is_number(self.crop_pct) or self.crop_pct <= 0:
            raise ValueError(f"crop_pct is a positive share, got {self.crop_pct!r}")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How the published file is laid out.

    Attributes:
        format: what kind of file it is.
        wrapper: "auto": found when it is read.
        key_mapping: steps of `robust_models.key_mapping` that turn its names into ours; none means all of them.
    """

    format: str = "unknown"
    wrapper: str = "auto"
    key_mapping: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_text(self, "format", "wrapper")
        _check_texts(self, "key_mapping")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One set of published weights.

    Attributes:
        name: unique, `family/id`.
        arch: name of the architecture.
        arch_source: who builds it: "timm", "robust_models", "timm.ResNet" (its class, with `arch_kwargs`), or "not
            planned": listed for reference, there is no builder.
        arch_kwargs: further arguments of the builder.
        family: the group of publications; None means the first part of `name`.
        dataset: what it classifies, e.g. "imagenet1k".
        num_classes: number of logits.
        method: how it was trained.
        paper: address of the publication.
        threat: what it was trained against, None for natural robustness.
        metrics: printed numbers in percent; names that end in `_mce` or `_mfr` are better when lower. Numbers from
            different `metrics_source` were measured by different protocols and are not comparable.
        metrics_source: where `metrics` were printed.
        urls: addresses of the file, to be tried in order.
        gdrive_ids: Google Drive files.
        share_pages: pages for humans, from which the file has to be fetched by hand.
        hf_repo: repository on the Hugging Face hub.
        preprocess: images of the printed evaluation; None where unknown.
        checkpoint: layout of the file; None where unknown.
        license: licence of the weights, as far as it is known.
        sha256: checksum of the file, None where unknown.
        sha256_prefix: its first digits, which file names of torch.hub carry.
        sha256_policy: what happens when the checksum is not known.
        robustbench_id: its name in RobustBench.
        note: anything else to know.
        loadable: whether there is a published file and a builder for it.
    """

    name: str
    arch: str
    arch_source: str = "timm"
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    family: str | None = None
    dataset: str = "imagenet1k"
    num_classes: int = 1000
    method: str | None = None
    paper: str | None = None
    threat: Threat | None = None
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    metrics_source: str | None = None
    urls: tuple[str, ...] = ()
    gdrive_ids: tuple[str, ...] = ()
    share_pages: tuple[str, ...] = ()
    hf_repo: str | None = None
    preprocess: Preprocess | None = None
    checkpoint: Checkpoint | None = None
    license: str | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    sha256_policy: str | None = None
    robustbench_id: str | None = None
    note: str | None = None
    loadable: bool = True

    def __post_init__(self) -> None:
        # The name becomes a path in the cache, so nothing in it may lead out of there.
        if not re.fullmatch(r"(?!\.)[\w.+-]+(/(?!\.)[\w.+-]+)+", str(self.name)):
            raise ValueError(f"name must be family/id of letters, digits and _ . + -, got {self.name!r}")
        if self.family is None:
            object.__setattr__(self, "family", self.name.partition("/")[0])
        if not re.fullmatch(r"(?!\.)[\w.+-]+", str(self.family)):
            raise ValueError(f"family must be of letters, digits and _ . + -, got {self.family!r}")
        _check_text(self, "name", "arch", "arch_source", "family", "dataset")
        _check_text(
            self, "method", "paper", "metrics_source", "hf_repo", "license", "sha256", "sha256_prefix",
            "sha256_policy", "robustbench_id", "note", optional=True,
        )  # fmt: skip
        _check_texts(self, "urls", "gdrive_ids", "share_pages")
        if not _is_count(self.num_classes):
            raise ValueError(f"num_classes must be a positive whole number, got {self.num_classes!r}")
        for name in ("arch_kwargs", "metrics"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must be a mapping, got {getattr(self, name)!r}")
        if wrong := [name for name, value in self.metrics.items() if not _is_number(value)]:
            raise ValueError(f"metrics must be numbers in percent, got {wrong[0]} = {self.metrics[wrong[0]]!r}")
        for name, digits in (("sha256", "{64}"), ("sha256_prefix", "{6,64}")):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(f"[0-9a-fA-F]{digits}", value):
                raise ValueError(f"{name} must be {digits[1:-1]} hexadecimal digits, got {value!r}")

    @property
    def has_builder(self) -> bool:
        """Whether the architecture can be built."""
        return self.arch_source != "not planned"

    @property
    def restricted(self) -> bool:
        """Whether the licence forbids commercial use, or derives from one that does."""
        return bool(re.search(r"\bNC\b|non-?commercial", self.license or "", re.IGNORECASE))


def read_entry(values: Mapping[str, Any]) -> Entry:
    """Make an entry of what a JSON or TOML file holds; null is the same as leaving the field out.

    Raises:
        ValueError: for unknown fields or wrong values.
    """
    nested = {"threat": Threat, "preprocess": Preprocess, "checkpoint": Checkpoint}
    given = dict(values)
    for name, kind in nested.items():
        if given.get(name) is not None:
            given[name] = _made(kind, given[name], f"{name} of {values.get('name')}")
    entry: Entry = _made(Entry, given, f"entry {values.get('name')}")
    return entry


def _made(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a table of fields, got {values!r}")
    known = [each.name for each in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{where} has unknown fields {', '.join(unknown)}: the fields are {', '.join(known)}")
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None
    }
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).partition('__init__() ')[2] or error}") from error


def _check_text(record: object, *names: str, optional: bool = False) -> None:
    for name in names:
        value = getattr(record, name)
        if not (isinstance(value, str) or (optional and value is None)):
            raise ValueError(f"{name} must be text, got {value!r}")


def _check_texts(record: object, *names: str) -> None:
    for name in names:
        values = getattr(record, name)
        if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{name} must be a sequence of texts, got {values!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
