"""Text and tables in Markdown (CommonMark with GitHub's tables)."""

import re
from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"[&<>\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])|^[-+](?=[- ]|$)")
_NUMBERED = re.compile(r"^(\d+)([.)])(?= |$)")
_INVISIBLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def escape(text: str) -> str:
    r"""Write any text so that Markdown shows it as it is, on one line: names are text and never markup.

    Runs of white space, control characters and marks that reorder the line become one blank.

    Examples:
        >>> print(escape("a|b <i> small_cnn_8"))
        a\|b &lt;i&gt; small_cnn_8
    """
    line = _INVISIBLE.sub(" ", text).strip()
    marked = _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line)
    return _NUMBERED.sub(r"\1\\\2", marked)  # or it would begin a list


def table(header: Sequence[str], lines: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Write a table; its cells are text, not Markdown.

    Args:
        header: titles of the columns.
        lines: for every line its cells, as many as there are columns.
        right: columns of numbers, from 0, whose cells stand on the right.
    """
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    cells = [[escape(cell) for cell in line] for line in (header, *lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells[0], rule, *cells[1:]))


def fence(code: str) -> str:
    """Write code as a block that no backtick in it can end.

    Examples:
        >>> print(fence("robust-bench list"), end="")
        ```
        robust-bench list
        ```
    """
    longest = max((len(ticks) for ticks in re.findall("`+", code)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{code}\n{ticks}\n"


def of(renderable: RenderableType) -> str:
    """Write what prints as tables of rich, such as `robust_bench.tables.table(results)`, in Markdown.

    Args:
        renderable: a table, a group of tables and text, or text.
    """
    if isinstance(renderable, Group):
        return "\n".join(of(part) for part in renderable.renderables)
    if not isinstance(renderable, Table):
        return f"{escape(str(renderable))}\n"
    columns = [[str(cell) for cell in column.cells] for column in renderable.columns]
    right = [number for number, column in enumerate(renderable.columns) if column.justify == "right"]
    body = table([str(column.header) for column in renderable.columns], list(zip(*columns, strict=True)), right=right)
    return body if renderable.title is None else f"**{escape(str(renderable.title))}**\n\n{body}"
