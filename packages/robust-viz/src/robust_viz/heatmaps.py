"""Heat maps of the error under corruptions."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from robust_viz import style
from robust_viz._text import fit
from robust_viz.results import Record, Row, Source, read_all

GROUPS = (
    ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    ("snow", "frost", "fog", "brightness", "spatter"),
    ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
)
ORDER = {name: i for i, name in enumerate(name for group in GROUPS for name in group)}
SEVERITIES = (1, 2, 3, 4, 5)
# White-ish for no error, dark for many: perceptually uniform, without the near-black end that would hide the text.
PANEL = 2.4  # inches for the name of a model
COLOURS = ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0, 0.8, 256)))


def corruption_heatmap(
    results: Source | Sequence[Source], *, benchmark: str | None = None, title: str | None = None
) -> Figure:
    """Draw the error of models side by side: a row per corruption, a column per severity, and the mean of the row.

    Corruptions stand in the order noise, blur, weather, digital. All models share one colour scale. Cells without a
    measurement are hatched, and a row with such cells has no mean. Corruptions that were measured with several presets
    have a row for each.

    Args:
        results: run folders, paths or contents of `result.json` files, or `robust_bench.Result` objects.
        benchmark: the data set; needed only if the results have several.
        title: what stands above; None names the benchmark.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if there is nothing to draw, or more than one figure's worth.
    """
    records = read_all(results)
    measured = corruption_benchmarks(records)
    if not measured:
        raise ValueError(
            "no row of the results is a corruption with a severity: evaluate with Corrupted(...) conditions"
        )
    if benchmark is None and len(measured) > 1:
        raise ValueError(f"the results have several benchmarks: choose one of {', '.join(measured)}")
    benchmark = measured[0] if benchmark is None else benchmark
    if benchmark not in measured:
        raise ValueError(f"no corruption was measured on {benchmark!r}: there are {', '.join(measured)}")
    telling = _telling(records, benchmark)
    errors = {record.model: _errors(record, benchmark, telling) for record in records}
    errors = {model: cells for model, cells in errors.items() if cells}
    names = sorted({name for cells in errors.values() for name, _ in cells}, key=_place)
    severities = sorted({severity for cells in errors.values() for _, severity in cells} | set(SEVERITIES))
    columns = min(len(errors), 3)
    rows = math.ceil(len(errors) / columns)
    figure = style.new_figure(1.9 + 2.75 * columns, 1.1 + (0.75 + 0.29 * len(names)) * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    highest = max(max(cells.values()) for cells in errors.values())
    for axes, (model, cells) in zip(panels.flat, errors.items(), strict=False):
        _panel(axes, model, cells, names, severities, highest)
    for axes in list(panels.flat)[len(errors) :]:
        axes.set_axis_off()
    for i, axes in enumerate(panels.flat):
        if len(errors) - columns <= i < len(errors):  # the last visible panel of its column
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("severity", fontsize=style.NORMAL, color=style.INK)
    style.heading(figure, f"Error in % on corrupted {benchmark}" if title is None else title)
    return style.settle(figure)


def corruption_benchmarks(records: Sequence[Record]) -> tuple[str, ...]:
    """The benchmarks on which corruptions were measured."""
    return tuple(dict.fromkeys(row.benchmark for r in records for row in r.rows if _is_corruption(row.settings)))


def _is_corruption(settings: object) -> bool:
    return (
        isinstance(settings, Mapping)
        and settings.get("kind") == "corruption"
        and isinstance(settings.get("severity"), int)
        and isinstance(settings.get("corruption"), str)
    )


def _rows(record: Record, benchmark: str) -> list[Row]:
    return [row for row in record.rows if row.benchmark == benchmark and _is_corruption(row.settings)]


def _telling(records: Sequence[Record], benchmark: str) -> list[str]:
    """The settings, such as the preset, that tell apart measurements of one corruption at one severity."""
    settings = [row.settings for record in records for row in _rows(record, benchmark)]
    keys = sorted({key for one in settings for key in one} - {"kind", "corruption", "severity"})
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]


def _errors(record: Record, benchmark: str, telling: Sequence[str]) -> dict[tuple[str, int], float]:
    """The error, a fraction, for each corruption (with what tells it from another of its name) and severity."""
    errors = {}
    for row in _rows(record, benchmark):
        name = ", ".join([str(row.settings["corruption"]), *(f"{key} {row.settings.get(key)}" for key in telling)])
        errors[name, int(row.settings["severity"])] = 1 - row.value
    return errors


def _place(name: str) -> tuple[float, str]:
    return ORDER.get(name.split(",")[0], math.inf), name


def _panel(
    axes: Axes,
    model: str,
    cells: dict[tuple[str, int], float],
    names: Sequence[str],
    severities: Sequence[int],
    highest: float,
) -> None:
    table = np.array([[cells.get((name, severity), np.nan) for severity in severities] for name in names])
    table = np.concatenate([table, table.mean(axis=1, keepdims=True)], axis=1) * 100
    scale = highest * 100 or 1
    axes.imshow(np.ma.masked_invalid(table), cmap=COLOURS, vmin=0, vmax=scale, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if np.isnan(value):
            axes.fill_between(
                [column - 0.5, column + 0.5],
                row - 0.5,
                row + 0.5,
                facecolor="white",
                edgecolor=style.PALE,
                hatch="////",
                linewidth=0,
            )
        else:
            axes.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=style.SMALL,
                color=_legible(float(value / scale)),
            )
    axes.axvline(len(severities) - 0.5, color="white", linewidth=3)
    axes.set_xticks(range(len(severities) + 1), [*(str(s) for s in severities), "mean"])
    axes.set_yticks(range(len(names)), [fit(name.replace("_", " "), 2.2, style.SMALL) for name in names])
    axes.set_title(fit(model, PANEL, style.NORMAL))
    style.tidy(axes)
    axes.title.set_fontsize(style.NORMAL)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legible(share: float) -> str:
    """Black or white, whichever stands out more from the colour of this share, in [0, 1], of the scale."""
    red, green, blue, _ = COLOURS(share)
    area = red, green, blue
    return max(("white", "black"), key=lambda colour: style.contrast(colour, area))
