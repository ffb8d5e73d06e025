"""Benchmarks that analyse how a model fails: attacks by steps, source and start, perturbations, patches, attention."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from robust_bench._checks import Model
from robust_bench.answer import answering
from robust_bench.answers import Answers
from robust_bench.benchmarks import cifar_attacks, digits, folder, imagenet_attacks
from robust_bench.benchmarks.analyses import Analyses
from robust_bench.benchmarks.analysis_scores import (
    attention_scores,
    convergence_scores,
    effectiveness_scores,
    occlusion_scores,
    semantic_scores,
    steps_scores,
)
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.family import Family
from robust_bench.conditions import Clean, Condition
from robust_bench.conditions.semantic import Resized
from robust_bench.datasets.chosen import chosen, evenly_spaced
from robust_bench.model_source import ModelSource
from robust_bench.part import Benchmark, Found, Part, Scores, image_shape
from robust_bench.preprocess import declared
from robust_bench.result import Row

_LIGHT = "Debenedetti et al., SaTML 2023, arXiv:2209.07399"
_ORHAN = "Orhan, 2019, arXiv:1907.07640"
_RSPC = "Guo et al., CVPR 2023"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A data set that is analysed.

    Args:
        part: its clean images.
        eps: of Linf attacks that have none of their own, in units of [0, 1] pixels.
        patch_size: side of patches, in pixels.
    """

    part: Part
    eps: float
    patch_size: int


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of analysis.

    Args:
        about: in one line.
        source: of the score.
        parts: makes what is evaluated, under a name.
        scores: from the answers of the changed images, without the clean ones.
    """

    about: str
    source: str
    parts: Callable[[str, Subject, Analyses], tuple[Part, ...]]
    scores: Callable[[Sequence[Answers]], Iterable[Row]]


def _under(
    name: str,
    subject: Subject,
    conditions: Sequence[Condition],
    positions: Sequence[int] | None = None,
    words: str = "",
) -> tuple[Part, ...]:
    """The clean part and the same images under conditions, or some of the images, clean and under conditions."""
    clean = subject.part
    if positions is None or len(positions) == _size(clean.data):
        return clean, dataclasses.replace(clean, name=name, benchmark=clean.label, conditions=tuple(conditions))
    some = dataclasses.replace(
        clean,
        name=name,
        benchmark=f"{clean.label}, {words}",
        data=chosen(clean.data, positions),
        conditions=(Clean(), *conditions),
        settings={**clean.settings, "subset": words},
    )
    return (some,)


def _spaced(name: str, subject: Subject, conditions: Sequence[Condition], images: int | None) -> tuple[Part, ...]:
    """As `_under`, on at most so many images, evenly spaced.

    Raises:
        ValueError: if the number is not positive.
    """
    if images is None:
        return _under(name, subject, conditions)
    if images < 1:
        raise ValueError(f"images must be at least 1, or None for all, got {images}")
    return _under(
        name, subject, conditions, evenly_spaced(_size(subject.part.data), images), f"{images} images, evenly spaced"
    )


def _steps(name: str, subject: Subject, analyses: Analyses) -> tuple[Part, ...]:
    conditions = analyses.steps.conditions()
    if analyses.steps.protocol == "orhan2019":
        every_second = range(0, _size(subject.part.data), 2)
        return _under(f"{name}-orhan2019", subject, conditions, every_second, "every second image")
    return _under(name, subject, conditions)


def _transfer(name: str, subject: Subject, analyses: Analyses) -> tuple[Part, ...]:
    given = analyses.transfer
    if given.source is None:
        raise ValueError(
            f"{name} attacks another model than the one that is evaluated: name it, e.g. "
            "--analyses.transfer.source timm:resnext50_32x4d.tv_in1k, which is that of the paper"
        )
    source = _model(given.source, given.weights, subject.part)
    return _under(name, subject, given.conditions(source, given.source))


def _semantic(name: str, subject: Subject, analyses: Analyses) -> tuple[Part, ...]:
    given = analyses.semantic
    if not given.judges:
        raise ValueError(
            f"{name} needs classifiers that judge the perturbations: name at least one, e.g. "
            """--analyses.semantic.judges '["timm:swin_base_patch4_window7_224.ms_in22k_ft_in1k"]'"""
        )
    side = image_shape(subject.part)[-1]
    judges = {spec: _sized(_model(spec, None, subject.part), side) for spec in given.judges}
    return _spaced(name, subject, (given.condition(judges, subject.eps),), given.images)


def _sized(model: Model, side: int) -> Model:
    """A model for images of this side, where it declares that it takes those of another."""
    known = declared(model)
    return Resized(model, known.size) if known is not None and known.size != side else model


def _model(spec: str, weights: Path | None, part: Part) -> Model:
    """A further model in eval mode, which answers as the one that is evaluated does.

    Raises:
        ValueError: if the name is unknown, or there is nothing to load.
        FileNotFoundError: if the file of weights is missing.
    """
    classes = part.num_classes if part.answer is None else part.answer.logits
    model = ModelSource(spec=spec, weights=weights).build(num_classes=classes, in_chans=part.in_chans).eval()
    return model if part.answer is None else answering(model, part.answer)


def _size(data: Dataset[Any]) -> int:
    return len(data)  # type: ignore[arg-type]  # those of benchmarks have a length


KINDS: Mapping[str, _Kind] = {
    "steps": _Kind(
        about="accuracy after 10 to 50 steps of PGD, and whether it still falls",
        source=_ORHAN,
        parts=_steps,
        scores=steps_scores,
    ),
    "effectiveness": _Kind(
        about="the loss under PGD of 1, 2, 5 and 10 steps against that of 200",
        source=_LIGHT,
        parts=lambda name, subject, analyses: _under(name, subject, analyses.effectiveness.conditions(subject.eps)),
        scores=effectiveness_scores,
    ),
    "convergence": _Kind(
        about="the loss under PGD of more and more steps, and its spread over 20 random starts",
        source=_LIGHT,
        parts=lambda name, subject, analyses: _spaced(
            name, subject, analyses.convergence.conditions(subject.eps), analyses.convergence.images
        ),
        scores=convergence_scores,
    ),
    "transfer": _Kind(
        about="accuracy on what PGD made on another model, which --analyses.transfer.source names",
        source=_ORHAN,
        parts=_transfer,
        scores=lambda _answers: (),
    ),
    "semantic": _Kind(
        about="whether other classifiers, --analyses.semantic.judges, see the true class in perturbations",
        source=_LIGHT,
        parts=_semantic,
        scores=semantic_scores,
    ),
    "occlusion": _Kind(
        about="accuracy under 100 masks, each of which replaces 10 % of the patches by noise",
        source=_RSPC,
        parts=lambda name, subject, analyses: _under(
            name, subject, (analyses.occlusion.condition(subject.patch_size),)
        ),
        scores=occlusion_scores,
    ),
    "attention": _Kind(
        about="how much the attention of a transformer changes when 10 % of the patches are occluded",
        source=_RSPC,
        parts=lambda name, subject, analyses: _under(
            name, subject, (analyses.attention.condition(subject.patch_size),)
        ),
        scores=attention_scores,
    ),
}
"""The analyses, by the ending of their benchmarks' names."""


def entries(
    base: str,
    part_of: Callable[[Options], Part],
    *,
    eps: float = 4 / 255,
    patch_size: int = 16,
    kinds: Sequence[str] = tuple(KINDS),
    layout: str | None = None,
    folders: tuple[str, ...] = (),
    fits: Callable[[Path], bool] | None = None,
) -> tuple[Entry, ...]:
    """Make the benchmarks that analyse a model on one data set, e.g. `digits-steps`.

    Args:
        base: what their names begin with.
        part_of: makes the part of the clean images, which they share with other benchmarks.
        eps: of Linf attacks that have none of their own, in units of [0, 1] pixels.
        patch_size: side of patches, in pixels.
        kinds: which of `KINDS`.
        layout: see `Entry`.
        folders: see `Entry`.
        fits: see `Entry`.

    Examples:
        >>> [entry.name for entry in entries("mine", digits.FAMILY.part, kinds=("steps", "occlusion"))]
        ['mine-steps', 'mine-occlusion']
    """

    def entry(kind: str) -> Entry:
        name, known = f"{base}-{kind}", KINDS[kind]
        scores = _scores(name, known)

        def build(options: Options) -> Benchmark:
            subject = Subject(part=part_of(options), eps=eps, patch_size=patch_size)
            return Benchmark(name=name, parts=known.parts(name, subject, options.analyses), scores=scores)

        return Entry(
            name=name,
            about=known.about,
            source=known.source,
            build=build,
            scores=scores,
            layout=layout,
            folders=folders,
            fits=fits,
        )

    return tuple(entry(kind) for kind in kinds)


def _scores(name: str, kind: _Kind) -> Scores:
    """The scores of a benchmark's own parts, without the clean images."""

    def scores(found: Found) -> Iterator[Row]:
        for part in (name, f"{name}-orhan2019"):
            changed = [each for each in found.get(part, ()) if each.settings.get("kind") != "clean"]
            if changed:
                yield from kind.scores(changed)

    return scores


def _of(family: Family, base: str, patch_size: int, kinds: Sequence[str] = tuple(KINDS)) -> tuple[Entry, ...]:
    return entries(
        base,
        family.part,
        eps=family.autoattack_eps,
        patch_size=patch_size,
        kinds=kinds,
        layout=family.layout,
        folders=family.folders,
        fits=family.fits,
    )


ENTRIES = (
    *_of(digits.FAMILY, "digits", 2, ("steps", "effectiveness", "convergence", "occlusion")),
    *_of(folder.FAMILY, "folder", 16),
    *_of(imagenet_attacks.FAMILY, "imagenet", 16),
    *(entry for family in cifar_attacks.FAMILIES for entry in _of(family, family.name, 4)),
)
