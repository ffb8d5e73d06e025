"""The bar: what it shows, and that it is silent without a terminal."""

import sys

import pytest
from robust_bench import evaluate
from robust_bench.progress import bar, running


def test_the_running_accuracy_has_its_interval():
    assert running("clean", 0, 10) == "clean 0.0 ± 15.4 %"
    assert running("PGD-20, Linf 0.1", 450, 450) == "PGD-20, Linf 0.1 100.0 ± 0.4 %"


@pytest.mark.parametrize("show", [None, False])
def test_without_a_terminal_nothing_is_written(model, grey, capfd, show):
    evaluate(model, grey, progress=show)
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_it_shows_by_itself(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with bar("data", 10, None) as shown:
        shown.advance(4, "clean", 3, 4)
        assert shown.progress is not None
        task = shown.progress.tasks[0]
        assert (task.completed, task.total) == (4, 10)
        assert task.fields["running"].startswith("clean 75.0 ±")


@pytest.mark.parametrize("total", [10, None])
def test_where_asked_for_it_writes_its_last_state_and_names_are_text(total, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with bar("[red]data[/red]", total, True) as shown:
        shown.advance(10, "[bold]", 5, 10)
    written = capfd.readouterr().err
    assert "[red]data[/red]" in " ".join(written.split())
    assert "[bold]" in written
