"""Perturbation sequences of ImageNet-P and CIFAR-10-P: frames that a human sees as one image.

`SEQUENCES` names the ten of ImageNet-P that the mean flip rate is over, `VALIDATION_SEQUENCES` the four that were
published beside them for choosing settings; `REPORTED` has the ten of each preset.
"""

from robust_bench.corruptions.sequences.frames import apply as apply
from robust_bench.corruptions.sequences.frames import frames as frames
from robust_bench.corruptions.sequences.frames import sample as sample
from robust_bench.corruptions.sequences.frames import sequence as sequence
from robust_bench.corruptions.sequences.presets import DIFFICULTIES as DIFFICULTIES
from robust_bench.corruptions.sequences.presets import PRESETS as PRESETS
from robust_bench.corruptions.sequences.presets import REPORTED as REPORTED
from robust_bench.corruptions.sequences.presets import SEQUENCES as SEQUENCES
from robust_bench.corruptions.sequences.presets import VALIDATION_SEQUENCES as VALIDATION_SEQUENCES
from robust_bench.corruptions.sequences.table import count as count
from robust_bench.corruptions.sequences.table import is_noise as is_noise

__all__ = [
    "DIFFICULTIES",
    "PRESETS",
    "REPORTED",
    "SEQUENCES",
    "VALIDATION_SEQUENCES",
    "apply",
    "count",
    "frames",
    "is_noise",
    "sample",
    "sequence",
]
