"""Common corruptions of images: the first four of ImageNet-C's fifteen, batched, at any size.

`CORRUPTIONS` names them in the published order.
"""

from robust_bench.corruptions.corrupt import CORRUPTIONS as CORRUPTIONS
from robust_bench.corruptions.corrupt import GROUPS as GROUPS
from robust_bench.corruptions.corrupt import VARIANTS as VARIANTS
from robust_bench.corruptions.corrupt import SizeWarning as SizeWarning
from robust_bench.corruptions.corrupt import apply as apply
from robust_bench.corruptions.corrupt import corrupt as corrupt
from robust_bench.corruptions.corrupt import sample as sample
from robust_bench.corruptions.draws import Draws as Draws
from robust_bench.corruptions.presets import PRESETS as PRESETS
from robust_bench.corruptions.presets import Preset as Preset
from robust_bench.corruptions.presets import preset_for as preset_for

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "PRESETS",
    "VARIANTS",
    "Draws",
    "Preset",
    "SizeWarning",
    "apply",
    "corrupt",
    "preset_for",
    "sample",
]
