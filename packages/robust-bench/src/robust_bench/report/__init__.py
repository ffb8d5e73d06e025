"""A run folder as one self-contained HTML page, and many as a leaderboard."""

from robust_bench.report.page import write_report as write_report
from robust_bench.report.run_folder import RunFolder as RunFolder
from robust_bench.report.site import write_site as write_site

__all__ = ["RunFolder", "write_report", "write_site"]
