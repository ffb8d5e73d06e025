"""A run folder as one self-contained HTML page."""

from robust_bench.report.page import write_report as write_report
from robust_bench.report.run_folder import RunFolder as RunFolder

__all__ = ["RunFolder", "write_report"]
