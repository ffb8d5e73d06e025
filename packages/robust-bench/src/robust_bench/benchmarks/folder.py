"""Benchmarks on images of the user's own."""

from pathlib import Path

from robust_bench.benchmarks.entry import Options
from robust_bench.benchmarks.family import Family
from robust_bench.datasets import Folder
from robust_bench.part import Part
from robust_bench.preprocess import Preprocess

_LAYOUT = (
    "Expected DIR/<class>/<image>, one folder per class in the order of the labels (numbers inside names count as "
    "numbers), or with --reader another of timm's readers, e.g. --reader wds/ for WebDataset shards in DIR and "
    "--reader hfds/NAME for a Hugging Face data set"
)


def _part(options: Options) -> Part:
    if options.data is None:
        raise ValueError(
            f"the benchmark 'folder' needs a folder of images <class>/<image>: give data (--data DIR). {_LAYOUT}"
        )
    chosen = options.preprocess or Preprocess()
    opened = Folder(options.data, preprocess=chosen)
    return Part(
        name="folder",
        data=opened,
        num_classes=len(opened.classes),
        settings={
            "dataset": "folder",
            "path": str(options.data),
            "preprocessing": chosen.settings,
            "classes": len(opened.classes),
        },
    )


FAMILY = Family(
    name="folder",
    about="images in DIR/<class>/<image>",
    source="yours",
    part=_part,
    eps=(1 / 255, 2 / 255, 4 / 255, 8 / 255),
    autoattack_eps=4 / 255,
    generated="folder-c",
    layout=_LAYOUT,
    fits=lambda path: any(Path(entry).is_dir() for entry in path.iterdir()),
)
ENTRIES = FAMILY.entries()
