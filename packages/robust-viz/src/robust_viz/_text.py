"""Names and titles as they can be written: without control characters, and not wider than their place."""

import re
import textwrap

from matplotlib.textpath import TextPath

# What XML 1.0 forbids (section 2.2), and the other control characters, which no font has.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Replace what an SVG must not contain and no font can draw: control characters and halves of surrogate pairs."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def fit(text: str, inches: float, points: float, lines: int = 2) -> str:
    """Wrap `text` to lines of at most about `inches` in letters of `points`, and cut its middle if they are too many.

    The ends stay, since names of models often differ in one of them.
    """
    text = printable(text)
    widest = max(_width(line, points) for line in text.split("\n"))
    if widest <= inches:
        return text
    letters = max(4, int(0.93 * inches * max(map(len, text.split("\n"))) / widest))
    wrapped = textwrap.wrap(text, letters)
    if len(wrapped) > lines:
        text = " ".join(text.split())
        room = lines * letters - 1
        if len(text) > room:
            text = text[: room // 2] + "…" + text[len(text) - (room - room // 2) :]
        wrapped = textwrap.wrap(text, letters)
        if len(wrapped) > lines:  # words leave gaps at the ends of lines
            wrapped = [text[i : i + letters].strip() for i in range(0, len(text), letters)]
    return "\n".join(wrapped)


def _width(line: str, points: float) -> float:
    """The width of one line in inches."""
    if not line.strip():
        return 0.0
    return float(TextPath((0, 0), line, size=points, usetex=False).get_extents().width) / 72
