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


def attacked(result, **changes):
    """The rows under attack, with other settings."""
    rows = [row for row in result.rows if row.settings["kind"] == "attack"]
    return tuple(dataclasses.replace(row, settings={**row.settings, **changes}) for row in rows)


def test_attacks_of_one_label_have_lines_of_their_own(result):
    rows = (*attacked(result, step_size=None), *attacked(result, step_size=0.01), *attacked(result, step_size=0.01))
    text = str(dataclasses.replace(result, rows=rows))
    for eps in (0.1, 0.2):
        assert f"PGD-20 × 3, Linf {eps} (step_size by default)" in text
        assert f"PGD-20 × 3, Linf {eps} (step_size 0.01)" in text
        assert f"PGD-20 × 3, Linf {eps} (step_size 0.01, repeat 2)" in text


def test_corruptions_with_other_constants_have_lines_of_their_own(result):
    other = [dataclasses.replace(row, settings={**row.settings, "preset": "imagenet"}) for row in result.rows[3:]]
    lines = str(dataclasses.replace(result, rows=(*result.rows, *other))).splitlines()
    assert sum("contrast (preset cifar)" in line for line in lines) == 1
    assert sum("contrast (preset imagenet)" in line for line in lines) == 1


def test_another_metric_is_no_accuracy(result):
    odd = dataclasses.replace(result.rows[0], metric="loss", unit="nats", value=3.5, low=3.0, high=4.0)
    text = str(dataclasses.replace(result, rows=(odd,)))
    assert "Accuracy" not in text
    assert "loss, nats (95 % interval)" in text
    assert "3.5 (3–4)" in text
