"""Names are text in Markdown, whatever they hold: a parser of CommonMark gives them back."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Group
from rich.table import Table
from rich.text import Text
from robust_bench import markdown

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ODD = st.text(alphabet=st.sampled_from("ab1 .|\\`*_[]<>()#+-=:!~&$;/\"'\n\t\x00é🤖"), max_size=12) | st.text(
    max_size=12
)
REORDERING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def seen(text):
    """What a reader should see of a text: one line, without what is invisible."""
    invisible = {letter for letter in text if letter.isspace() or unicodedata.category(letter) == "Cc"} | {*REORDERING}
    return " ".join("".join(" " if letter in invisible else letter for letter in text).split(" ")).split()


def shown(inline):
    """The words of an inline token, which must be nothing but text."""
    assert {child.type for child in inline.children} <= {"text"}, inline.children
    return "".join(child.content for child in inline.children).split()


def inlines(text):
    return [token for token in PARSER.parse(text) if token.type == "inline"]


@given(st.lists(st.tuples(ODD, ODD), min_size=1, max_size=4))
@example([("a\\|b\\", "|"), ("<script>alert(1)</script>", "_x_ a_b __c__")])
def test_cells_come_back_as_they_are(lines):
    text = markdown.table(("first", "se|cond"), lines)
    tokens = PARSER.parse(text)
    assert [token.type for token in tokens].count("table_open") == 1
    assert tokens[-1].type == "table_close"
    cells = [shown(token) for token in inlines(text)]
    assert cells == [["first"], ["se|cond"], *(seen(cell) for line in lines for cell in line)]


@pytest.mark.parametrize("begin", ["", "# ", "- "])
@given(text=ODD)
@example(text="1. a")
@example(text="- - a")
@example(text="---")
def test_text_is_no_markup_wherever_it_stands(begin, text):
    words = seen(text)
    if words:
        found = inlines(f"{begin}{markdown.escape(text)}\n")
        assert [shown(token) for token in found] == [words]


def test_plain_names_stay_readable():
    assert (
        markdown.escape("small_cnn_8, PGD-20 × 3, Linf 8/255 (97.8 %)")
        == "small_cnn_8, PGD-20 × 3, Linf 8/255 (97.8 %)"
    )


@given(st.text(alphabet="a`\n ", max_size=12))
def test_no_backtick_ends_a_block_of_code(code):
    (block,) = PARSER.parse(markdown.fence(code))
    assert (block.type, block.content) == ("fence", f"{code}\n")


def test_what_rich_prints_is_written_with_titles_and_alignment():
    table = Table(title=Text("a|b"))
    table.add_column("name")
    table.add_column(Text("value"), justify="right")
    table.add_row(Text("[bold]x[/bold]"), "1.5")
    assert markdown.of(Group(table, Text("no *rows*"))) == (
        "**a\\|b**\n\n| name | value |\n| --- | ---: |\n| \\[bold\\]x\\[/bold\\] | 1.5 |\n\nno \\*rows\\*\n"
    )
