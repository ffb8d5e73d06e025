"""ObjectNet: objects in unusual places and positions."""

from pathlib import Path

from robust_bench.answer import Mapped
from robust_bench.benchmarks.data_settings import data_settings
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.opening import opening
from robust_bench.datasets.labelled_folder import LabelledFolder
from robust_bench.datasets.listing import subfolders
from robust_bench.datasets.objectnet import FILES, BorderCut, objectnet_classes
from robust_bench.part import Benchmark, Part
from robust_bench.preprocess import Preprocess

BORDER = 2
"""Pixels that are cut off at every side: the red border is one, and the authors' own evaluation cuts 2."""


def _build(options: Options) -> Benchmark:
    with opening(OBJECTNET, options) as root:
        classes = objectnet_classes(root / "mappings")
        images = root / "images"
        if missing := sorted(set(classes).difference(subfolders(images))):
            raise ValueError(
                f"{images} lacks {len(missing)} of the {len(classes)} folders of objects that are classes of ImageNet, "
                f"e.g. {', '.join(missing[:3])}"
            )
    treatment = BorderCut(pixels=BORDER, then=options.preprocess or Preprocess())
    answer = Mapped(indices=tuple(classes.values()))
    part = Part(
        name=OBJECTNET.name,
        data=LabelledFolder(images, {folder: label for label, folder in enumerate(classes)}, preprocess=treatment),
        num_classes=len(classes),
        answer=answer,
        settings=data_settings(
            dataset="ObjectNet", path=images, classes=len(classes), treatment=treatment, answer=answer.text
        ),
    )
    return Benchmark(name=OBJECTNET.name, parts=(part,))


def _fits(path: Path) -> bool:
    return (path / "images").is_dir() and all((path / "mappings" / name).is_file() for name in FILES)


OBJECTNET = Entry(
    name="objectnet",
    about="objects in unusual places and positions, those that are classes of ImageNet: top-1",
    source="Barbu et al., NeurIPS 2019",
    build=_build,
    layout=(
        "Expected DIR/objectnet-1.0/images/<object>/*.png and DIR/objectnet-1.0/mappings with the files "
        f"{', '.join(FILES)}, as the archive from https://objectnet.dev is unpacked"
    ),
    folders=("objectnet-1.0", "objectnet"),
    fits=_fits,
)
ENTRIES = (OBJECTNET,)
