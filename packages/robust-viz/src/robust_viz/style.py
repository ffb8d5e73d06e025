"""How all figures look: colours that colour-blind readers tell apart, letter sizes, axes."""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from robust_viz._text import fit, printable

Colour = str | tuple[float, float, float]

INK = "#1a1a1a"
GREY = "#6b6b6b"
PALE = "#d9d9d9"
SMALL, NORMAL, LARGE = 8, 9.5, 11  # points

# Okabe and Ito, "Color Universal Design", without its yellow, which vanishes on white.
MODEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MODEL_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", "--", ":", "-.")

# Areas of classes: Paul Tol's "light" scheme, made to lie behind dark text, and one brown beside it.
CLASS_COLOURS = (
    "#77aadd",
    "#ee8866",
    "#eedd88",
    "#ffaabb",
    "#99ddff",
    "#44bb99",
    "#bbcc33",
    "#aaaa00",
    "#c9a1de",
    "#c8a27c",
)
RIGHT_CLASS = "#f4f4f2"
OTHER_CLASSES = "#b5b5b5"


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """One colour per model, in the order given; the same models in the same order look alike in every figure."""
    return {model: MODEL_COLOURS[i % len(MODEL_COLOURS)] for i, model in enumerate(dict.fromkeys(models))}


def model_markers(models: Iterable[str]) -> dict[str, str]:
    """One marker per model, shifted with every round of colours: up to 49 models differ in one of the two."""
    count = len(MODEL_MARKERS)
    return {model: MODEL_MARKERS[(i + i // count) % count] for i, model in enumerate(dict.fromkeys(models))}


def class_colours(classes: Sequence[int]) -> dict[int, str]:
    """Colours for up to ten classes, by the class and not by the figure: class 3 is the same everywhere.

    Where two of them would share a colour (3 and 13), the later one takes the next that is free.
    """
    colours: dict[int, str] = {}
    for label in sorted(classes):
        free = [c for c in range(len(CLASS_COLOURS)) if CLASS_COLOURS[c] not in colours.values()]
        wish = label % len(CLASS_COLOURS)
        colours[label] = (
            CLASS_COLOURS[min(free, key=lambda c: (c - wish) % len(CLASS_COLOURS))] if free else OTHER_CLASSES
        )
    return colours


def legend_columns(labels: Iterable[str], width: float, most: int) -> int:
    """How many columns of these labels fit below a figure of `width` inches."""
    letters = 12.5 * width  # small ones
    return max(1, min(most, int(letters / (7 + max(len(label) for label in labels)))))


def figure_of(axes: Axes) -> Figure:
    """The figure that the user's `axes` belong to.

    Raises:
        TypeError: if they are something else.
        ValueError: if they were removed from their figure.
    """
    given: object = axes
    if not isinstance(given, Axes):
        raise TypeError(
            f"axes must be one matplotlib Axes to draw into, got {type(given).__name__}: take one of "
            "figure.subplots(), as axes[0], or leave it out for a new figure"
        )
    parent: Any = axes.figure  # None once they were removed, though matplotlib's types do not say so
    figure = None if parent is None else parent.figure
    if not isinstance(figure, Figure):
        raise ValueError("axes belong to no figure any more, since they were removed: make them by figure.subplots()")
    return figure


def contrast(one: Colour, other: Colour) -> float:
    """How well two colours can be told apart, 1 to 21, by WCAG 2.1, whose level AA asks for 4.5."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure in inches that lays itself out, known to nobody else: no pyplot."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    return Figure(figsize=(width, height), dpi=100, facecolor="white", layout=layout)


def settle(figure: Figure) -> Figure:
    """Lay out a finished figure for good, so that it looks the same however often and wherever it is drawn.

    The layout of square axes beside a legend moves from draw to draw before it comes to rest. Dollar signs in the
    names of models are taken as they are, not as formulae; control characters are replaced, which an SVG must not have.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(printable(text.get_text()))
    for _ in range(4):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def tidy(axes: Axes, *, grid: bool = False) -> None:
    """Give `axes` the letter sizes, colours and lines that all figures share, whatever the user's rcParams are."""
    axes.set_facecolor("white")
    axes.tick_params(labelsize=SMALL, colors=INK, length=3, width=0.8)
    for side, spine in axes.spines.items():
        spine.set_linewidth(0.8)
        spine.set_color(INK)
        spine.set_visible(not grid or side in ("left", "bottom"))
    for text, size in ((axes.xaxis.label, NORMAL), (axes.yaxis.label, NORMAL), (axes.title, LARGE)):
        _set(text, size)
    axes.set_axisbelow(True)
    axes.grid(visible=False)
    if grid:
        axes.grid(color=PALE, linewidth=0.6)


def heading(figure: Figure, text: str) -> None:
    """Write the title of a whole figure."""
    figure.suptitle(fit(text, figure.get_figwidth() - 0.2, LARGE), fontsize=LARGE, color=INK)


def _set(text: Text, size: float) -> None:
    text.set_fontsize(size)
    text.set_color(INK)
