import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from robust_viz import accuracy_curves, accuracy_vs_eps, style
from robust_viz.curves import describe


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_curve_starts_at_the_clean_accuracy_and_is_sorted(make_result):
    (curve,) = accuracy_curves(make_result(clean=0.97, pgd=((0.1, 0.5), (0.05, 0.8))))
    assert curve.eps == (0.0, 0.05, 0.1)
    assert curve.accuracy == (0.97, 0.8, 0.5)
    assert curve.low == pytest.approx((0.95, 0.78, 0.48))
    assert curve.high == pytest.approx((0.99, 0.82, 0.52))
    assert (curve.model, curve.benchmark, curve.norm, curve.attack) == ("ordinary", "digits", "Linf", "PGD-20 × 3")


def test_other_norms_and_attacks_are_curves_of_their_own(make_result):
    attack = make_result.attack
    rows = [
        attack(0.5, 0.6, norm="L2"),
        attack(0.05, 0.75, restarts=1),
        attack(0.05, 0.9, name="FGSM", steps=None),
        attack(0.1, 0.49, step_size=0.01),  # goes with eps, so it belongs to the same curve
    ]
    curves = accuracy_curves(make_result(pgd=((0.05, 0.8),), rows=rows))
    found = {(curve.norm, curve.attack.split(",")[0]): curve.eps for curve in curves}
    assert found == {
        ("Linf", "PGD-20 × 3"): (0.0, 0.05, 0.1),
        ("L2", "PGD-20 × 3"): (0.0, 0.5),
        ("Linf", "PGD-20"): (0.0, 0.05),
        ("Linf", "FGSM-null × 3"): (0.0, 0.05),
    } or set(found) == {("Linf", "PGD-20 × 3"), ("L2", "PGD-20 × 3"), ("Linf", "PGD-20"), ("Linf", "FGSM × 3")}


def test_attacks_that_share_a_name_are_told_apart_by_what_differs(make_result):
    attack = make_result.attack
    rows = [attack(0.1, 0.4, loss="margin", random_start=True), attack(0.1, 0.5, loss="dlr", random_start=True)]
    names = [curve.attack for curve in accuracy_curves(make_result(pgd=(), rows=rows))]
    assert names == ["PGD-20 × 3, loss margin", "PGD-20 × 3, loss dlr"]


def test_the_figure_shows_lines_bands_and_axes(make_result):
    results = [make_result("first", pgd=((0.1, 0.5),)), make_result("second", clean=0.9, pgd=((0.1, 0.8),))]
    figure = accuracy_vs_eps(results)
    assert isinstance(figure, Figure)
    axes = figure.axes[0]
    assert axes.get_title() == "Accuracy on digits under PGD-20 × 3"
    assert axes.get_xlabel() == "Linf eps (pixels in [0, 1])"
    assert axes.get_ylabel() == "accuracy"
    assert axes.get_ylim() == (0, 1)
    assert axes.get_xlim() == (0, 0.1)
    first, second = axes.lines
    np.testing.assert_allclose(first.get_xydata(), [[0, 0.97], [0.1, 0.5]])
    np.testing.assert_allclose(second.get_xydata(), [[0, 0.9], [0.1, 0.8]])
    assert (first.get_color(), second.get_color()) == style.MODEL_COLOURS[:2]
    assert first.get_marker() != second.get_marker()
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(np.round(v, 6)) for v in band} >= {(0, 0.95), (0, 0.99), (0.1, 0.48), (0.1, 0.52)}
    assert legend_of(figure) == ["first", "second"]
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("norm", "levels"), [("Linf", True), ("L2", True), ("L1", False)])
def test_the_upper_axis_counts_in_255ths_where_that_means_something(make_result, norm, levels):
    figure = accuracy_vs_eps(make_result(pgd=(), rows=[make_result.attack(0.5, 0.4, norm=norm)]))
    upper = figure.axes[0].child_axes
    assert bool(upper) == levels
    if levels:
        assert upper[0].get_xlabel() == f"{norm} eps in 1/255"
        assert upper[0].get_xlim() == pytest.approx((0, 127.5))


def test_several_attacks_are_line_styles_and_a_model_keeps_its_colour(make_result):
    rows = [make_result.attack(0.1, 0.6, restarts=1)]
    figure = accuracy_vs_eps([make_result("a", rows=rows), make_result("b", rows=rows)])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["a, PGD-20 × 3"].get_color() == lines["a, PGD-20"].get_color() != lines["b, PGD-20"].get_color()
    assert lines["a, PGD-20 × 3"].get_linestyle() == lines["b, PGD-20 × 3"].get_linestyle()
    assert lines["a, PGD-20 × 3"].get_linestyle() != lines["a, PGD-20"].get_linestyle()
    assert legend_of(figure) == ["a", "b", "PGD-20 × 3", "PGD-20"]
    assert figure.axes[0].get_title() == "Accuracy on digits"


def test_rows_without_interval_have_no_band(make_result):
    content = make_result()
    for row in content["rows"]:
        row["low"] = row["high"] = None
    figure = accuracy_vs_eps(content)
    assert not figure.axes[0].collections
    assert len(figure.axes[0].lines) == 1


def test_it_draws_into_given_axes(make_result):
    figure = Figure()
    axes = figure.add_subplot()
    assert accuracy_vs_eps(make_result(), axes=axes, title="Mine") is figure
    assert axes.get_title() == "Mine"
    assert axes.get_legend() is not None


def test_a_curve_that_rises_by_more_than_its_interval_is_flagged(make_result):
    honest, within, rises = (
        accuracy_curves(make_result(pgd=pgd))[0]
        for pgd in [((0.1, 0.5), (0.2, 0.4)), ((0.1, 0.5), (0.2, 0.515)), ((0.1, 0.5), (0.2, 0.55))]
    )
    assert honest.signs_of_masking == within.signs_of_masking == ()
    assert rises.signs_of_masking == ("accuracy rises from 50.0% at eps 0.1 to 55.0% at eps 0.2",)
    assert describe([honest]) == ""
    assert describe([honest, rises]).startswith("Possible gradient masking for ordinary (PGD-20 × 3): accuracy rises")


def test_a_curve_that_does_not_reach_zero_at_eps_one_is_flagged(make_result):
    attack = make_result.attack

    def signs(*rows):
        return accuracy_curves(make_result(pgd=(), rows=rows))[0].signs_of_masking

    assert signs(attack(1.0, 0.0)) == ()
    assert signs(attack(1.0, 0.1)) == ("accuracy is still 10.0% at eps 1, where it must be 0",)
    assert signs(attack(1.0, 0.1, norm="L2")) == ()  # within reach in Linf only


@pytest.mark.parametrize("name", ["x" * 300, "many short words " * 20], ids=["one", "words"])
def test_long_names_stay_in_the_figure(make_result, name):
    figure = accuracy_vs_eps([make_result(name + end, benchmark="digits" * 30) for end in "ab"])
    renderer = figure._get_renderer()
    for artist in (figure.axes[0].title, figure.legends[0]):
        box = artist.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
    assert [label[-1] for label in legend_of(figure)] == ["a", "b"]


def test_the_clean_accuracy_stands_at_eps_0_even_beside_an_attack_of_eps_0(make_result):
    (curve,) = accuracy_curves(make_result(clean=0.97, pgd=((0.0, 0.9), (0.1, 0.5))))
    assert curve.accuracy == (0.97, 0.5)
    assert accuracy_vs_eps(make_result(pgd=((0.0, 0.9),))).axes[0].get_xlim() == (0, 1)


def test_mistakes_are_told(make_result):
    with pytest.raises(ValueError, match=r"no row of the results is an attack.*Attacked"):
        accuracy_vs_eps(make_result(pgd=()))
    with pytest.raises(TypeError, match="axes must be one matplotlib Axes"):
        accuracy_vs_eps(make_result(), axes=Figure().subplots(1, 2))
    both = make_result(rows=[make_result.attack(0.5, 0.4, norm="L2")])
    with pytest.raises(ValueError, match="several norms: choose one of L2, Linf"):
        accuracy_vs_eps(both)
    with pytest.raises(ValueError, match="no attack has the norm 'L7': there are L2, Linf"):
        accuracy_vs_eps(both, norm="L7")
    with pytest.raises(ValueError, match="no attack has the benchmark 'cifar10': there are digits"):
        accuracy_vs_eps(both, benchmark="cifar10")
    two = [make_result("a"), make_result("b", benchmark="cifar10")]
    with pytest.raises(ValueError, match="several benchmarks: choose one of cifar10, digits"):
        accuracy_vs_eps(two)
    assert len(accuracy_vs_eps(two, benchmark="digits").axes[0].lines) == 1
