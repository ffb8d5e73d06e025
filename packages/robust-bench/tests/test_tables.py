"""The text table shows what the result holds."""

import dataclasses

from robust_bench.tables import render, table


def test_a_result_prints_per_cent_and_intervals(result):
    text = str(result)
    assert "clean" in text
    assert "98.0 (96.2–99.1)" in text
    assert "PGD-20 × 3, Linf 0.1" in text
    contrast = next(line for line in text.splitlines() if line.strip().startswith("contrast"))
    assert contrast.split()[2:] == ["82.2", "66.7", "51.1", "35.6", "20.0", "51.1"]


def test_two_results_stand_side_by_side(result):
    other = dataclasses.replace(result, model="other", rows=result.rows[:1])
    lines = render(table([result, other])).splitlines()
    clean = next(line for line in lines if line.strip().startswith("clean"))
    assert clean.count("98.0") == 2
    attack = next(line for line in lines if "Linf 0.2" in line)
    assert "–  " in attack  # not measured for the other


def test_names_are_not_markup(result):
    assert "[bold]x[/bold]" in str(dataclasses.replace(result, model="[bold]x[/bold]"))


def test_an_incomplete_row_of_severities_has_no_mean(result):
    text = str(dataclasses.replace(result, rows=result.rows[:-1]))
    contrast = next(line for line in text.splitlines() if line.strip().startswith("contrast"))
    assert contrast.split()[-2:] == ["–", "–"]


def test_no_rows_is_said(result):
    assert "no rows" in str(dataclasses.replace(result, rows=()))


def test_rich_prints_the_same(result):
    assert render(result) == str(result)
