import matplotlib.pyplot as plt
import numpy as np
import pytest
from robust_viz import corruption_heatmap

CELLS = [("pixelate", severity, severity / 20) for severity in range(1, 6)]
CELLS += [("gaussian_noise", severity, severity / 20 + 0.1) for severity in range(1, 6)]


def cell_texts(axes):
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}


def test_cells_are_errors_in_per_cent_with_the_mean_of_the_row(make_result):
    figure = corruption_heatmap(make_result(corruptions=CELLS))
    (axes,) = figure.axes
    noise = [5 * severity + 10 for severity in range(1, 6)]
    pixelate = [5 * severity for severity in range(1, 6)]
    table = np.array(axes.images[0].get_array())
    np.testing.assert_allclose(table, [[*noise, 25], [*pixelate, 15]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gaussian noise", "pixelate"]  # published order
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "4", "5", "mean"]
    assert axes.get_xlabel() == "severity"
    assert cell_texts(axes)[0, 0] == "15"
    assert cell_texts(axes)[1, 5] == "15"
    assert figure.get_suptitle() == "Error in % on corrupted digits"
    assert plt.get_fignums() == []


def test_models_share_one_scale_and_the_order_of_rows(make_result):
    figure = corruption_heatmap(
        [make_result("a", corruptions=CELLS), make_result("b", corruptions=[("fog", 1, 0.9)]), make_result("no")]
    )
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert [axes.images[0].get_clim() for axes in figure.axes] == [pytest.approx((0, 90))] * 2
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["gaussian noise", "fog", "pixelate"]


def test_missing_cells_are_hatched_and_never_zero(make_result):
    (axes,) = corruption_heatmap(make_result(corruptions=CELLS[1:])).axes
    assert axes.images[0].get_array().mask.tolist() == [[False] * 6, [True, *[False] * 4, True]]
    assert (1, 0) not in cell_texts(axes)
    assert (1, 5) not in cell_texts(axes)  # no mean without all severities
    hatched = [c for c in axes.collections if c.get_hatch()]
    assert len(hatched) == 2


def test_two_presets_of_a_corruption_are_two_rows(make_result):
    rows = [
        make_result.row(value, kind="corruption", corruption="fog", severity=1, preset=preset)
        for preset, value in (("imagenet", 0.4), ("cifar", 0.9))
    ]
    (axes,) = corruption_heatmap(make_result(rows=rows)).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["fog, preset cifar", "fog, preset imagenet"]
    assert cell_texts(axes) == {(0, 0): "10", (1, 0): "60"}


def test_many_models_go_to_several_rows(make_result):
    figure = corruption_heatmap([make_result(f"m{i}", corruptions=CELLS) for i in range(5)])
    assert [axes.get_title() for axes in figure.axes] == ["m0", "m1", "m2", "m3", "m4", ""]
    assert not figure.axes[5].axison


@pytest.mark.parametrize("models", [1, 2, 4, 5, 7])
def test_the_last_visible_panel_of_each_column_has_the_severities(make_result, models):
    figure = corruption_heatmap([make_result(f"m{i}", corruptions=CELLS) for i in range(models)])
    columns = min(models, 3)
    for i, axes in enumerate(figure.axes[:models]):
        last = i + columns >= models
        shown = [tick.label1.get_text() for tick in axes.xaxis.get_major_ticks() if tick.label1.get_visible()]
        assert shown == (["1", "2", "3", "4", "5", "mean"] if last else [])
        assert axes.get_xlabel() == ("severity" if last else "")


@pytest.mark.parametrize("models", [1, 2, 4])
def test_long_names_stay_in_their_panel_and_keep_their_ends(make_result, models):
    name = "convnext_base.a_model_with_very_long_words_in_it_that_were_trained_on_many_things_for_a_time"
    figure = corruption_heatmap([make_result(f"{name}_{i}", corruptions=CELLS) for i in range(models)])
    renderer = figure._get_renderer()
    boxes = [axes.title.get_window_extent(renderer) for axes in figure.axes[:models]]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    titles = [axes.get_title().replace("\n", "") for axes in figure.axes[:models]]
    assert all(t.startswith("convnext_base") and t.endswith(f"_{i}") and "…" in t for i, t in enumerate(titles))


def test_numbers_stand_out_from_every_colour(make_result, contrast):
    cells = [(f"c{i}", severity, (5 * i + severity) / 50) for i in range(10) for severity in range(1, 6)]
    (axes,) = corruption_heatmap(make_result(corruptions=cells)).axes
    table = axes.images[0]
    for text in axes.texts:
        column, row = (round(c) for c in text.get_position())
        assert contrast(text.get_color(), table.cmap(table.norm(table.get_array()[row, column]))) >= 4.5


def test_mistakes_are_told(make_result):
    with pytest.raises(ValueError, match=r"no row of the results is a corruption.*Corrupted"):
        corruption_heatmap(make_result())
    results = [make_result("a", corruptions=CELLS), make_result("b", corruptions=CELLS, benchmark="cifar10")]
    with pytest.raises(ValueError, match="several benchmarks: choose one of digits, cifar10"):
        corruption_heatmap(results)
    with pytest.raises(ValueError, match="no corruption was measured on 'svhn': there are digits, cifar10"):
        corruption_heatmap(results, benchmark="svhn")
    assert len(corruption_heatmap(results, benchmark="cifar10").axes) == 1
