"""Scores of per-image records, as pure functions. Rates are fractions: 0.457, not 45.7."""

from robust_bench.metrics.intervals import clopper_pearson as clopper_pearson

__all__ = ["clopper_pearson"]
