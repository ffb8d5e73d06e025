"""Corruptions that come from handling images: contrast, stretching, resolution, compression and colour."""

from robust_bench.corruptions.contrast import contrast, contrast_levels
from robust_bench.corruptions.corruption import LARGE, Corruption
from robust_bench.corruptions.elastic import (
    elastic_transform,
    elastic_transform_without_affine,
    sample_elastic,
    sample_shifts,
)
from robust_bench.corruptions.jpeg import jpeg_compression, jpeg_compression_levels
from robust_bench.corruptions.pixelate import pixelate, pixelate_levels
from robust_bench.corruptions.saturate import saturate

DIGITAL = (
    Corruption(name="contrast", group="digital", apply=contrast, apply_levels=contrast_levels),
    Corruption(
        name="elastic_transform", group="digital", apply=elastic_transform, sample=sample_elastic, smallest=LARGE
    ),
    Corruption(name="pixelate", group="digital", apply=pixelate, apply_levels=pixelate_levels, one_by_one=True),
    Corruption(
        name="jpeg_compression",
        group="digital",
        apply=jpeg_compression,
        apply_levels=jpeg_compression_levels,
        one_by_one=True,
    ),
    Corruption(name="saturate", group="digital", apply=saturate, extra=True),
)
DIGITAL_IMAGECORRUPTIONS = (
    Corruption(
        name="elastic_transform",
        group="digital",
        apply=elastic_transform_without_affine,
        sample=sample_shifts,
        smallest=LARGE,
    ),
)
