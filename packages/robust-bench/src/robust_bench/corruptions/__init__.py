"""Common corruptions of images, batched, at any size: ImageNet-C's fifteen and four extra ones.

`CORRUPTIONS` names the fifteen in the published order; only these enter the mean corruption error. The four of
`EXTRA_CORRUPTIONS` were published beside them, for choosing settings without looking at the fifteen.
"""

from robust_bench.corruptions.checks import SizeWarning as SizeWarning
from robust_bench.corruptions.contact_sheet import contact_sheet as contact_sheet
from robust_bench.corruptions.corrupt import apply as apply
from robust_bench.corruptions.corrupt import corrupt as corrupt
from robust_bench.corruptions.corrupt import sample as sample
from robust_bench.corruptions.draws import Draws as Draws
from robust_bench.corruptions.presets import PRESETS as PRESETS
from robust_bench.corruptions.presets import Preset as Preset
from robust_bench.corruptions.presets import preset_for as preset_for
from robust_bench.corruptions.table import CORRUPTIONS as CORRUPTIONS
from robust_bench.corruptions.table import EXTRA_CORRUPTIONS as EXTRA_CORRUPTIONS
from robust_bench.corruptions.table import GROUPS as GROUPS
from robust_bench.corruptions.table import VARIANTS as VARIANTS
from robust_bench.corruptions.table import available as available

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "GROUPS",
    "PRESETS",
    "VARIANTS",
    "Draws",
    "Preset",
    "SizeWarning",
    "apply",
    "available",
    "contact_sheet",
    "corrupt",
    "preset_for",
    "sample",
]
