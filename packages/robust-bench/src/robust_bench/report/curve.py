"""Accuracy over eps as a drawing: where its lines, bands and ticks lie."""

from collections.abc import Sequence
from dataclasses import dataclass

from robust_bench.families import families, is_sweep
from robust_bench.report.rows import attack_words
from robust_bench.result import Row
from robust_bench.tables import ACCURACY, eps_text

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 14, 46
_LABEL = 44  # width of a tick's label, e.g. "16/255"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured accuracy: where it lies, where its interval ends, and the row."""

    x: float
    y: float
    low: float
    high: float
    row: Row


@dataclass(frozen=True, kw_only=True)
class Series:
    """One attack at growing eps, from the clean images on where those were measured.

    Args:
        title: of the attack.
        points: by eps.
        joined: whether a line joins them: one eps alone is a mark without line.
    """

    title: str
    points: tuple[Point, ...]
    joined: bool

    @property
    def line(self) -> str:
        """Give the corners of the line, for SVG."""
        return _corners([(point.x, point.y) for point in self.points])

    @property
    def band(self) -> str:
        """Give the corners of the band of the intervals, for SVG."""
        upper = [(point.x, point.high) for point in self.points]
        return _corners(upper + [(point.x, point.low) for point in reversed(self.points)])


@dataclass(frozen=True, kw_only=True)
class Curve:
    """All attacks of one norm on one data set.

    Args:
        norm: e.g. "Linf".
        series: one per attack.
        eps: ticks of the horizontal axis, (place, words), with room for the words.
        shares: ticks of the vertical axis, (place, words).
        alt: the drawing in words.
    """

    norm: str
    series: tuple[Series, ...]
    eps: tuple[tuple[float, str], ...]
    shares: tuple[tuple[float, str], ...]
    alt: str


def curves(rows: Sequence[Row]) -> tuple[Curve, ...]:
    """Draw the curves of one model on one data set; a norm with a single eps has none.

    Args:
        rows: of one model; those that are no accuracy under an attack with eps are passed over.
    """
    accuracies = [row for row in rows if row.metric == ACCURACY]
    clean = next((row for row in accuracies if row.settings.get("kind") == "clean"), None)
    by_norm: dict[str, list[Row]] = {}
    for row in filter(is_sweep, accuracies):
        by_norm.setdefault(str(row.settings.get("norm", "an unknown norm")), []).append(row)
    return tuple(
        _curve(norm, mine, clean)
        for norm, mine in by_norm.items()
        if len({row.settings["eps"] for row in mine if row.settings["eps"] > 0}) > 1
    )


def _curve(norm: str, rows: Sequence[Row], clean: Row | None) -> Curve:
    largest = max(row.settings["eps"] for row in rows)

    def point(eps: float, row: Row) -> Point:
        assert row.low is not None
        assert row.high is not None
        across = LEFT + (WIDTH - LEFT - RIGHT) * eps / largest
        return Point(x=across, y=_height(row.value), low=_height(row.low), high=_height(row.high), row=row)

    series = []
    for family in families([rows], name=lambda row: attack_words(row)[0], size="eps"):
        mine = dict(family.cells[0])
        joined = len(mine) > 1
        if joined and clean is not None:
            mine.setdefault(0.0, clean)
        points = tuple(point(eps, mine[eps]) for eps in sorted(mine))
        series.append(Series(title=family.title, points=points, joined=joined))
    sizes = sorted({0.0, *(float(row.settings["eps"]) for row in rows)})
    names = ", ".join(each.title for each in series)
    return Curve(
        norm=norm,
        series=tuple(series),
        eps=_spaced([(LEFT + (WIDTH - LEFT - RIGHT) * eps / largest, eps_text(eps)) for eps in sizes]),
        shares=tuple((_height(share / 100), f"{share}") for share in (0, 25, 50, 75, 100)),
        alt=f"Accuracy over eps in {norm} under {names}; the numbers are in the table below",
    )


def _height(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _corners(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _spaced(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Leave out ticks whose labels would touch: the last stays, then each that has room up to the one after it."""
    kept = [ticks[-1]]
    for tick in reversed(ticks[:-1]):
        if kept[-1][0] - tick[0] >= _LABEL:
            kept.append(tick)
    return tuple(reversed(kept))
