"""The pictures of decision boundaries: numbers come from `boundary`, nothing is computed with a model here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon
from torch import Tensor

from robust_viz import style
from robust_viz._text import fit

if TYPE_CHECKING:
    from robust_viz.boundary import DecisionBoundary

NAMED = 10  # classes with a colour of their own
ACROSS = {"l2": "random direction (L2 distance)", "linf": "random signs (eps)"}
ALONG = {"l2": "loss gradient (L2 distance)", "linf": "sign of the loss gradient (eps)"}


def one(boundary: DecisionBoundary, class_names: Sequence[str] | None, title: str | None, axes: Axes | None) -> Figure:
    """Draw one boundary, into `axes` or into a new figure with a legend."""
    name = _namer(class_names)
    others = _others([boundary])
    figure = style.new_figure(4.8, 5.3) if axes is None else style.figure_of(axes)
    target = figure.add_subplot() if axes is None else axes
    _draw(target, boundary, others, name)
    title = f"Decision boundary around class {name(boundary.label)}" if title is None else title
    target.set_title(fit(title, 4.2, style.LARGE))
    target.set_xlabel(ACROSS[boundary.norm])
    target.set_ylabel(ALONG[boundary.norm])
    style.tidy(target)
    if axes is not None:
        return figure
    _legend(figure, [boundary], others, name)
    return style.settle(figure)


def grid(
    models: Sequence[str],
    boundaries: Sequence[Sequence[DecisionBoundary]],
    class_names: Sequence[str] | None,
    title: str | None,
) -> Figure:
    """Draw a row per image and a column per model, with the images at the left and one legend below."""
    name = _namer(class_names)
    cells = [cell for row in boundaries for cell in row]
    others = _others(cells)
    rows, columns = len(boundaries), len(models)
    figure = style.new_figure(1.5 + 2.55 * columns, 0.95 + 2.45 * rows)
    panels = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=[0.5, *[1.0] * columns])
    for i, row in enumerate(boundaries):
        _show_image(panels[i, 0], row[0], name)
        for j, cell in enumerate(row):
            axes = panels[i, j + 1]
            _draw(axes, cell, others, name)
            style.tidy(axes)
            axes.title.set_fontsize(style.NORMAL)
            if i == 0:
                axes.set_title(fit(models[j], 2.4, style.LARGE), fontsize=style.LARGE, color=style.INK)
            axes.tick_params(labelbottom=i == rows - 1, labelleft=j == 0)
            if j == 0:
                axes.set_ylabel(ALONG[cell.norm], fontsize=style.SMALL)
            if i == rows - 1:
                axes.set_xlabel(ACROSS[cell.norm], fontsize=style.SMALL)
    if title is not None:
        style.heading(figure, title)
    _legend(figure, cells, others, name)
    return style.settle(figure)


def _draw(axes: Axes, boundary: DecisionBoundary, others: dict[int, str], name: _Namer) -> None:
    """The map itself: regions, boundary of the right class, centre and least distance."""
    classes, offsets = boundary.classes.numpy(), boundary.offsets.numpy()
    right = classes == boundary.label
    codes = np.full(classes.shape, len(others) + 1)
    for code, label in enumerate(others, start=1):
        codes[classes == label] = code
    codes[right] = 0
    half = boundary.extent * (1 + 1 / (len(offsets) - 1))  # cells are centred on their points
    axes.imshow(
        _spread(codes),
        cmap=ListedColormap([style.RIGHT_CLASS, *others.values(), style.OTHER_CLASSES]),
        vmin=-0.5,
        vmax=len(others) + 1.5,
        extent=(-half, half, -half, half),
        origin="lower",
        interpolation="nearest",
        aspect="equal",
    )
    if right.any() and not right.all():
        margins = boundary.margins.numpy()
        axes.contourf(offsets, offsets, margins, levels=[0.0, margins.max() + 1], colors=[style.RIGHT_CLASS])
        axes.contour(offsets, offsets, margins, levels=[0.0], colors=[style.INK], linewidths=1.3)
    if not boundary.clip and not boundary.inside.all():
        outside = ~boundary.inside.numpy()
        hatched = axes.contourf(offsets, offsets, outside, levels=[0.5, 1.5], colors="none", hatches=["//"])
        hatched.set_edgecolor(style.OTHER_CLASSES)
        hatched.set_linewidth(0)
    if 0 < boundary.least < math.inf:
        _ball(axes, boundary)
    for label in np.unique(classes):
        _name_region(axes, classes == label, boundary, name(int(label)))
    axes.plot(0, 0, "o", markersize=5, color=style.INK, markeredgecolor="white", markeredgewidth=1, zorder=5)
    axes.set_xlim(-boundary.extent, boundary.extent)
    axes.set_ylim(-boundary.extent, boundary.extent)
    axes.locator_params(nbins=5)


def _ball(axes: Axes, boundary: DecisionBoundary) -> None:
    """The ball of the least distance: in the plane a circle for L2, a diamond for Linf."""
    radius = boundary.least
    look = {"fill": False, "linestyle": "--", "linewidth": 1.1, "edgecolor": style.INK, "zorder": 4}
    if boundary.norm == "l2":
        axes.add_patch(Circle((0, 0), radius, **look))
    else:
        axes.add_patch(Polygon([(radius, 0), (0, radius), (-radius, 0), (0, -radius)], closed=True, **look))


def _spread(codes: np.ndarray) -> np.ndarray:
    """Let the other classes grow by a cell into the right one (0), whose edge is then drawn between the points."""
    spread = codes.copy()
    padded = np.pad(codes, 1, mode="edge")
    for up, left in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (0, 2), (2, 0), (2, 2)):
        neighbour = padded[up : up + codes.shape[0], left : left + codes.shape[1]]
        spread = np.where(spread == 0, neighbour, spread)
    return spread


def _name_region(axes: Axes, mask: np.ndarray, boundary: DecisionBoundary, text: str) -> None:
    """Write the name of a class where its region is widest, if there is room; colour is not the only sign."""
    offsets, room = boundary.offsets.numpy(), len(mask) // 14
    across, along = np.abs(offsets)[None, :], np.abs(offsets)[:, None]
    length = np.hypot(across, along) if boundary.norm == "l2" else across + along
    step = 2 * boundary.extent / (len(mask) - 1)
    taken = (length < 1.5 * room * step) | (np.abs(length - boundary.least) < room * step)  # the image and the ball
    centre = _deepest(mask & ~taken, room)
    if centre is None:
        return
    row, column = centre
    axes.text(
        offsets[column],
        offsets[row],
        text if len(text) <= 12 else text[:11] + "…",
        ha="center",
        va="center",
        fontsize=style.SMALL,
        color=style.INK,
        clip_on=True,
        path_effects=[patheffects.withStroke(linewidth=2, foreground="white", alpha=0.7)],
        zorder=3,
    )


def _deepest(mask: np.ndarray, least: int) -> tuple[int, int] | None:
    """The point of `mask` (P, P) farthest from its edge, by peeling; None if `least` peelings empty it."""
    free, left, depth = mask, mask, 0
    while free.any():
        left, depth = free, depth + 1
        free = np.pad(free, 1)
        free = free[1:-1, 1:-1] & free[:-2, 1:-1] & free[2:, 1:-1] & free[1:-1, :-2] & free[1:-1, 2:]
    if depth <= least:
        return None
    points = np.argwhere(left)
    row, column = points[np.square(points - points.mean(0)).sum(1).argmin()]
    return int(row), int(column)


def _others(boundaries: Sequence[DecisionBoundary]) -> dict[int, str]:
    """Colours of the classes met, but for a class that is the right one everywhere: the largest regions first."""
    counts: dict[int, int] = {}
    for boundary in boundaries:
        labels, sizes = np.unique(boundary.classes.numpy(), return_counts=True)
        for label, size in zip(labels.tolist(), sizes.tolist(), strict=True):
            if label != boundary.label:
                counts[label] = counts.get(label, 0) + size
    largest = sorted(counts, key=lambda label: (-counts[label], label))[:NAMED]
    return style.class_colours(largest)


def _legend(figure: Figure, boundaries: Sequence[DecisionBoundary], others: dict[int, str], name: _Namer) -> None:
    right = {boundary.label for boundary in boundaries}
    text = f"class {name(right.pop())} (right)" if len(right) == 1 else "right class"
    entries: list[Artist] = [Patch(facecolor=style.RIGHT_CLASS, edgecolor=style.GREY, linewidth=0.6, label=text)]
    entries += [Patch(facecolor=colour, label=f"class {name(label)}") for label, colour in others.items()]
    met = {int(x) for boundary in boundaries for x in np.unique(boundary.classes.numpy()) if x != boundary.label}
    if met - others.keys():
        entries.append(Patch(facecolor=style.OTHER_CLASSES, label=f"other ({len(met - others.keys())})"))
    if any(not boundary.clip and not boundary.inside.all() for boundary in boundaries):
        entries.append(Patch(facecolor="white", edgecolor=style.OTHER_CLASSES, hatch="////", label="outside [0, 1]"))
    if any(0 < boundary.least < math.inf for boundary in boundaries):
        least = f": {boundaries[0].least:.3g}" if len(boundaries) == 1 else ""
        entries.append(Line2D([], [], color=style.INK, linestyle="--", linewidth=1.1, label=f"least distance{least}"))
    seen = (
        f", taken for class {name(boundaries[0].prediction)}"
        if len(boundaries) == 1 and not _is_right(boundaries[0])
        else ""
    )
    entries.append(Line2D([], [], color=style.INK, marker="o", markersize=5, linestyle="", label=f"the image{seen}"))
    columns = style.legend_columns([str(e.get_label()) for e in entries], figure.get_figwidth(), 6)
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        fontsize=style.SMALL,
        labelcolor=style.INK,
        frameon=False,
    )


def _is_right(boundary: DecisionBoundary) -> bool:
    return boundary.prediction == boundary.label


def _show_image(axes: Axes, boundary: DecisionBoundary, name: _Namer) -> None:
    image: Tensor = boundary.image
    pixels = image.permute(1, 2, 0).numpy() if len(image) == 3 else image.mean(0).numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"class {name(boundary.label)}", fontsize=style.NORMAL, color=style.INK)


class _Namer:
    """Class numbers to names."""

    def __init__(self, names: Sequence[str] | None) -> None:
        self.names = names

    def __call__(self, label: int) -> str:
        if self.names is None:
            return str(label)
        if label >= len(self.names):
            raise ValueError(f"class_names has {len(self.names)} names, but class {label} was met: give one per class")
        return self.names[label]


def _namer(names: Sequence[str] | None) -> _Namer:
    return _Namer(names)
