"""Benchmarks on the embedded handwritten digits, whose 17 grey levels make an eps of 0.15 about two and a half."""

from robust_bench.benchmarks.entry import Options
from robust_bench.benchmarks.family import Family
from robust_bench.datasets import digits
from robust_bench.part import Part


def _part(_options: Options) -> Part:
    return Part(
        name="digits",
        data=digits("test"),
        num_classes=10,
        in_chans=1,
        settings={"dataset": "digits (scikit-learn), test part", "preprocessing": "none", "classes": 10},
    )


FAMILY = Family(
    name="digits",
    about="450 handwritten digits of 8 x 8 pixels that come with scikit-learn",
    source="Alpaydin & Kaynak, UCI 1998",
    part=_part,
    eps=(0.05, 0.1, 0.15, 0.2, 0.3),
    autoattack_eps=0.15,
    generated="digits-c",
)
ENTRIES = FAMILY.entries()
