"""CIFAR's test images under attack, and under corruptions that are made here."""

from functools import partial

from robust_bench.benchmarks.cifar import CLEAN, Classes
from robust_bench.benchmarks.corruption_scores import error_scores
from robust_bench.benchmarks.entry import Options
from robust_bench.benchmarks.family import Family
from robust_bench.part import Part


def _part(classes: Classes, options: Options) -> Part:
    (part,) = CLEAN[classes].build(options).parts
    return part


def _family(classes: Classes) -> Family:
    clean = CLEAN[classes]
    return Family(
        name=clean.name,
        about=f"the test images of CIFAR-{classes}",
        source=clean.source,
        part=partial(_part, classes),
        eps=(2 / 255, 4 / 255, 8 / 255, 16 / 255),
        autoattack_eps=8 / 255,
        generated=f"{clean.name}-c:generated",
        generated_scores=partial(error_scores, benchmark=f"{clean.name}-c:generated"),
        layout=clean.layout,
        folders=clean.folders,
        fits=clean.fits,
    )


FAMILIES = (_family(10), _family(100))
ENTRIES = tuple(entry for family in FAMILIES for entry in (family.corrupted(), family.swept(), family.autoattacked()))
