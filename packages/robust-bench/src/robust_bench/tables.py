"""Results as text tables: the only place, with the report page, where fractions become per cent."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from robust_bench.families import SEVERITIES, Family, families, is_corruption

if TYPE_CHECKING:
    from robust_bench.result import Result, Row

ACCURACY = "accuracy"
METRICS = {
    "top5_accuracy": "top-5 accuracy",
    "mean_error": "mean error",
    "accuracy_drop": "accuracy drop",
    "corruption_error": "CE",
    "mean_corruption_error": "mCE",
    "relative_mean_corruption_error": "relative mCE",
    "mean_corruption_error_without_noise": "mCE without noise",
    "flip_probability": "flip probability",
    "mean_flip_probability": "mean flip probability",
    "mean_flip_rate": "mFR",
    "top5_distance": "top-5 distance",
    "mean_top5_distance": "mT5D",
    "zipf_distance": "Zipf distance",
    "rms_calibration_error": "RMS calibration error",
    "mean_absolute_calibration_error": "MAD calibration error",
    "attack_effectiveness": "loss gap to the oracle",
    "aurra": "AURRA",
    "average_precision": "AUPR",
    "auroc": "AUROC",
    "fpr_at_95_recall": "FPR95",
    "ood_accuracy": "OOD accuracy",
}
"""Metrics whose customary name is not their own with spaces."""


def metric_name(metric: str) -> str:
    """Name a metric as people do.

    Examples:
        >>> metric_name("mean_corruption_error"), metric_name("shape_bias")
        ('mCE', 'shape bias')
    """
    return METRICS.get(metric, metric.replace("_", " "))


def number(row: "Row", value: float) -> str:
    """Write a value, or an end of the interval, of a row: fractions in per cent."""
    return percent(value) if row.unit == "fraction" else f"{value:.4g}"


def interval(row: "Row") -> str:
    """Write a row's interval, nothing where there is none."""
    return "" if row.low is None or row.high is None else f"{number(row, row.low)}–{number(row, row.high)}"


def cell(row: "Row") -> str:
    """Write a row's value with its interval."""
    return number(row, row.value) + (f" ({interval(row)})" if row.low is not None else "")


def metric_title(metric: str, unit: str) -> str:
    """Head a table of a metric."""
    return f"{metric_name(metric)}, {'%' if unit == 'fraction' else unit}"


def percent(value: float) -> str:
    """Write a fraction as per cent with one decimal.

    Examples:
        >>> percent(0.9775)
        '97.8'
    """
    return f"{100.0 * value:.1f}"


def eps_text(eps: float) -> str:
    """Write an eps as people do: 8/255 for multiples of a grey level, otherwise a short decimal.

    Examples:
        >>> eps_text(8 / 255), eps_text(0.15), eps_text(0.5)
        ('8/255', '0.15', '0.5')
    """
    levels = eps * 255.0
    if levels >= 0.5 and abs(levels - round(levels)) < 1e-6 and len(f"{eps:.12g}") > 6 and eps < 1.0:
        return f"{round(levels)}/255"
    return f"{eps:.4g}"


def table(results: Sequence["Result"]) -> RenderableType:
    """Lay out results side by side: accuracies with intervals, corruptions by severity, then other metrics."""
    parts: list[RenderableType] = []
    rows = [row for result in results for row in result.rows]
    if any(row.metric == ACCURACY and not is_corruption(row) for row in rows):
        parts.append(_accuracies(results))
    if any(row.metric == ACCURACY and is_corruption(row) for row in rows):
        parts.append(_corruptions(results))
    parts += [_others(results, metric) for metric in dict.fromkeys(row.metric for row in rows) if metric != ACCURACY]
    parts += [Text(note) for note in notes(results)]
    if not parts:
        parts.append(Text(f"no rows ({', '.join(result.model for result in results) or 'no results'})"))
    return Group(*parts)


def notes(results: Sequence["Result"]) -> list[str]:
    """What rows say beside their values, e.g. that a curve still falls at its end."""
    found = [
        f"{result.model}, {row.benchmark}, {row.condition}: {row.settings['details']['warning']}"
        for result in results
        for row in result.rows
        if isinstance(row.settings.get("details"), Mapping) and row.settings["details"].get("warning")
    ]
    return list(dict.fromkeys(found))


def render(renderable: RenderableType, width: int = 160) -> str:
    """Turn something that rich can print into plain text, without colours or trailing spaces."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def _accuracies(results: Sequence["Result"]) -> Table:
    out = _head(results, "Accuracy, % (95 % interval)")
    plain = [[row for row in result.rows if row.metric == ACCURACY and not is_corruption(row)] for result in results]
    for line in families(plain, name=_namer(results)):
        _add(out, line, cell)
    return out


def _others(results: Sequence["Result"], metric: str) -> Table:
    unit = next(row.unit for result in results for row in result.rows if row.metric == metric)
    out = _head(results, f"{metric_title(metric, unit)} (95 % interval)")
    mine = [[row for row in result.rows if row.metric == metric] for result in results]
    for line in families(mine, name=_namer(results)):
        _add(out, line, cell)
    return out


def _namer(results: Sequence["Result"]) -> Callable[["Row"], str]:
    """Name rows by their condition, and by the benchmark where there are several."""
    several = len({row.benchmark for result in results for row in result.rows}) > 1
    return lambda row: f"{row.benchmark}: {row.condition}" if several else row.condition


def _head(results: Sequence["Result"], title: str) -> Table:
    out = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
    out.add_column("condition")
    for result in results:
        out.add_column(Text(result.model), justify="right")
    out.add_column("images", justify="right")
    return out


def _add(out: Table, line: Family, text: Callable[["Row"], str]) -> None:
    rows = [cells.get(None) for cells in line.cells]
    counts = sorted({row.count for row in rows if row is not None})
    out.add_row(Text(line.title), *("–" if row is None else text(row) for row in rows), ", ".join(map(str, counts)))


def _corruptions(results: Sequence["Result"]) -> Table:
    out = Table(
        box=box.SIMPLE_HEAD, title="Accuracy under corruption, %, by severity", title_justify="left", pad_edge=False
    )
    out.add_column("corruption")
    out.add_column("model")
    for severity in SEVERITIES:
        out.add_column(str(severity), justify="right")
    out.add_column("mean", justify="right")
    rows = [[row for row in result.rows if row.metric == ACCURACY and is_corruption(row)] for result in results]
    several = len({row.benchmark for mine in rows for row in mine}) > 1
    for line in families(
        rows,
        name=lambda row: (f"{row.benchmark}: " if several else "") + str(row.settings["corruption"]),
        size="severity",
    ):
        heading = line.title
        for result, cells in zip(results, line.cells, strict=True):
            if cells:
                texts = [percent(cells[severity].value) if severity in cells else "–" for severity in SEVERITIES]
                values = [row.value for row in cells.values()]
                mean = percent(sum(values) / len(values)) if len(values) == len(SEVERITIES) else "–"
                out.add_row(Text(heading), Text(result.model), *texts, mean)
                heading = ""
    return out
