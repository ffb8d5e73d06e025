"""ImageNet's validation images under attack: a sweep on all of them, AutoAttack on 5,000."""

import dataclasses
from collections.abc import Callable
from functools import partial

from robust_bench.benchmarks.corruption_scores import corruption_scores
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.family import Family
from robust_bench.benchmarks.imagenet import VALIDATION, validation
from robust_bench.datasets.chosen import chosen
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.datasets.published_ids import balanced, positions_of, published_ids
from robust_bench.part import Benchmark, Part

_EPS = 4 / 255
_PER_CLASS = 5


def _published(options: Options) -> Part:
    whole = validation(options)
    assert isinstance(whole.data, LabelledFolder)
    names = [whole.data.filename(index) for index in range(len(whole.data))]
    ids = published_ids(options.ids)
    about = "the published 5,000" if options.ids is None else f"{len(ids):,} listed in {options.ids.name}"
    return _subset(whole, "imagenet-autoattack", positions_of(ids, names), about)


def _balanced(options: Options) -> Part:
    whole = validation(options)
    data = whole.data
    assert isinstance(data, LabelledFolder)
    count = len(data)
    labels = [data.listing.label(index) for index in range(count)]
    places = balanced([data.filename(index) for index in range(count)], labels, _PER_CLASS)
    return _subset(whole, "imagenet-autoattack-balanced", places, f"{_PER_CLASS} of every class, by hash of the name")


def _subset(whole: Part, name: str, positions: list[int], about: str) -> Part:
    settings = {key: value for key, value in whole.settings.items() if key != "images_expected"}
    return dataclasses.replace(
        whole,
        name=f"{name}-clean",
        benchmark=name,
        data=chosen(whole.data, positions),
        settings=settings | {"subset": about},
    )


def _autoattack(name: str, about: str, part_of: Callable[[Options], Part]) -> Entry:
    def build(options: Options) -> Benchmark:
        clean = part_of(options)
        attacked = dataclasses.replace(clean, name=name, conditions=(options.autoattack.condition(_EPS),))
        return Benchmark(name=name, parts=(clean, attacked))

    return dataclasses.replace(
        VALIDATION,
        name=name,
        about=about,
        source="Croce & Hein, ICML 2020, arXiv:2003.01690; Croce et al., arXiv:2010.09670",
        build=build,
        scores=None,
    )


FAMILY = Family(
    name=VALIDATION.name,
    stem="imagenet",
    about="ImageNet's validation images",
    source="Russakovsky et al., IJCV 2015",
    part=validation,
    eps=(0.5 / 255, 1 / 255, 2 / 255, 4 / 255),
    autoattack_eps=_EPS,
    generated="imagenet-c:generated",
    generated_scores=partial(corruption_scores, benchmark="imagenet-c:generated", clean=VALIDATION.name),
    layout=VALIDATION.layout,
    folders=VALIDATION.folders,
    fits=VALIDATION.fits,
)
ENTRIES = (
    FAMILY.corrupted(),
    FAMILY.swept(),
    _autoattack("imagenet-autoattack", "AutoAttack at eps 4/255 on the published 5,000 validation images", _published),
    _autoattack(
        "imagenet-autoattack-balanced",
        "the same on 5,000 other images, five of every class: not comparable with published numbers",
        _balanced,
    ),
)
