"""Which corruptions there are, per variant."""

from pathlib import Path

from robust_bench.corruptions.blur import BLUR
from robust_bench.corruptions.corruption import Corruption
from robust_bench.corruptions.digital import DIGITAL, DIGITAL_IMAGECORRUPTIONS
from robust_bench.corruptions.frost import frost_corruption
from robust_bench.corruptions.noise import NOISE
from robust_bench.corruptions.weather import WEATHER, WEATHER_IMAGECORRUPTIONS

VARIANTS = ("imagenet_c", "imagecorruptions")

_PUBLISHED = {corruption.name: corruption for corruption in (*NOISE, *BLUR, *WEATHER, *DIGITAL)}
_CHANGED = {corruption.name: corruption for corruption in (*DIGITAL_IMAGECORRUPTIONS, *WEATHER_IMAGECORRUPTIONS)}
_TABLES = {"imagenet_c": _PUBLISHED, "imagecorruptions": {**_PUBLISHED, **_CHANGED}}

CORRUPTIONS = tuple(name for name, corruption in _PUBLISHED.items() if not corruption.extra)
EXTRA_CORRUPTIONS = tuple(name for name, corruption in _PUBLISHED.items() if corruption.extra)
GROUPS = {name: corruption.group for name, corruption in _PUBLISHED.items()}


def find(name: str, variant: str = "imagenet_c", frost: str | Path = "procedural") -> Corruption:
    """Look up a corruption.

    Args:
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        variant: one of `VARIANTS`.
        frost: where the textures of frost come from: "procedural", "package" or a folder.

    Raises:
        ValueError: if a name is unknown.
    """
    if name not in _PUBLISHED:
        raise ValueError(f"unknown corruption {name!r}: choose from {', '.join(_PUBLISHED)}")
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: choose from {', '.join(VARIANTS)}")
    if name == "frost":
        return frost_corruption(frost, variant)
    return _TABLES[variant][name]


def available(height: int, width: int) -> tuple[str, ...]:
    """Name those of `CORRUPTIONS` that take images of this size, in the published order.

    The blurs, snow, frost, fog and elastic_transform need 32 pixels a side; the others take any size.
    """
    return tuple(name for name in CORRUPTIONS if min(height, width) >= _PUBLISHED[name].smallest)
