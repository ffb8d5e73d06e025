import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from robust_viz import decision_boundaries, decision_boundary, style


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def many(images):
    """Twenty-five classes in stripes along the sum of the pixels."""
    total = images.double().sum((1, 2, 3), keepdim=False)
    return -((total[:, None] * 10 - 60 - torch.arange(25)) ** 2) / 50


def test_the_figure_says_what_it_shows(linear):
    model, image, margin = linear
    distance = margin / float(model.weight.detach().norm())
    figure = decision_boundary(model, image, 0, extent=2 * distance, points=21).figure()
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert axes.get_title() == "Decision boundary around class 0"
    assert axes.get_xlabel() == "random direction (L2 distance)"
    assert axes.get_ylabel() == "loss gradient (L2 distance)"
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx((-2 * distance, 2 * distance))
    assert legend_of(figure) == ["class 0 (right)", "class 1", f"least distance: {distance:.3g}", "the image"]
    (circle,) = [patch for patch in axes.patches if isinstance(patch, Circle)]
    assert circle.radius == pytest.approx(distance, rel=0.01)
    assert {text.get_text() for text in axes.texts} == {"0", "1"}
    assert plt.get_fignums() == []


def test_the_boundary_is_drawn_where_the_margin_is_zero(linear):
    model, image, margin = linear
    distance = margin / float(model.weight.detach().norm())
    (axes,) = decision_boundary(model, image, 0, extent=2 * distance, points=21).figure().axes
    lines = [c for c in axes.collections if not c.get_facecolor().size]
    vertices = np.concatenate([path.vertices for c in lines for path in c.get_paths()])
    assert len(vertices)
    np.testing.assert_allclose(vertices[:, 1], distance, rtol=1e-6)


def test_in_linf_the_ball_is_a_diamond(linear):
    model, image, _ = linear
    boundary = decision_boundary(model, image, 0, norm="linf")
    (axes,) = boundary.figure().axes
    assert axes.get_xlabel() == "random signs (eps)"
    (ball,) = [patch for patch in axes.patches if isinstance(patch, Polygon)]
    np.testing.assert_allclose(np.abs(ball.get_xy()).sum(1), boundary.least)


def test_at_most_ten_classes_have_a_name_and_the_rest_is_other():
    boundary = decision_boundary(many, torch.full((1, 4, 4), 0.51), extent=0.4, norm="linf")
    assert boundary.classes_met > 12
    entries = legend_of(boundary.figure())
    assert len([entry for entry in entries if entry.startswith("class") and "right" not in entry]) == 10
    assert f"other ({boundary.classes_met - 11})" in entries


def test_the_right_class_looks_the_same_whichever_it_is_and_the_others_keep_their_colours():
    image = torch.full((1, 4, 4), 0.51)
    for label in (18, 20):
        boundary = decision_boundary(many, image, label, extent=0.05, norm="linf")
        figure = boundary.figure()
        handles = dict(zip(legend_of(figure), figure.legends[0].legend_handles, strict=True))
        assert to_hex(handles[f"class {label} (right)"].get_facecolor()) == style.RIGHT_CLASS
        assert to_hex(handles["class 19"].get_facecolor()) == style.CLASS_COLOURS[9]


def test_what_lies_outside_the_box_is_hatched_only_if_the_model_sees_it(linear):
    model, image, _ = linear
    clipped = decision_boundary(model, image, extent=3.0).figure()
    seen = decision_boundary(model, image, extent=3.0, clip=False).figure()
    assert "outside [0, 1]" not in legend_of(clipped)
    assert "outside [0, 1]" in legend_of(seen)
    assert any(c.get_hatch() or getattr(c, "hatches", [None])[0] for c in seen.axes[0].collections)


def test_class_names_and_titles_are_shown(linear):
    model, image, _ = linear
    boundary = decision_boundary(model, image, 0)
    figure = boundary.figure(class_names=["cat", "dog"], title="My title")
    assert figure.axes[0].get_title() == "My title"
    assert legend_of(figure)[:2] == ["class cat (right)", "class dog"]
    with pytest.raises(ValueError, match="class_names has 1 names, but class 1 was met"):
        boundary.figure(class_names=["cat"])


def test_a_misclassified_image_is_said_to_be_one(linear):
    model, image, _ = linear
    assert "the image, taken for class 0" in legend_of(decision_boundary(model, image, 1).figure())


def test_it_draws_into_given_axes(linear):
    model, image, _ = linear
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert decision_boundary(model, image).figure(axes=right) is figure
    assert not left.images
    assert len(right.images) == 1
    assert not figure.legends


def test_axes_that_are_none_are_told(linear):
    model, image, _ = linear
    with pytest.raises(TypeError, match="axes must be one matplotlib Axes"):
        decision_boundary(model, image, points=5).figure(axes=Figure().subplots(1, 2))


def test_a_grid_has_a_row_per_image_and_a_column_per_model(network):
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    models = {"first $x$": network, "second": lambda x: network(x) * 2}
    grid = decision_boundaries(models, images, torch.tensor([0, 1, 2]), points=9)
    figure = grid.figure(title="All", class_names=list("abcde"))
    assert figure.get_suptitle() == "All"
    assert len(figure.axes) == 9
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["class a", "first $x$", "second"]
    assert [titles[3], titles[6]] == ["class b", "class c"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), images[0].permute(1, 2, 0))
    assert legend_of(figure)[0] == "right class"
    assert plt.get_fignums() == []


def test_nothing_is_cut_off(linear, network):
    model, image, _ = linear
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    for figure in (
        decision_boundary(model, image, 0).figure(class_names=["a rather long name", "another long name"]),
        decision_boundaries({"a": network, "b": network}, images, points=9).figure(title="T"),
    ):
        width, height = figure.get_size_inches()
        renderer = figure._get_renderer()
        for artist in (*figure.axes, *figure.legends):
            box = artist.get_tightbbox(renderer)
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width * figure.dpi
            assert box.y1 <= height * figure.dpi
