import pytest
from matplotlib.figure import Figure
from robust_viz import style


def test_a_class_has_its_colour_whatever_else_is_shown():
    assert style.class_colours([3])[3] == style.class_colours([1, 3, 7])[3] == style.CLASS_COLOURS[3]
    assert len(set(style.class_colours(range(10)).values())) == 10


def test_classes_that_would_share_a_colour_get_different_ones():
    colours = style.class_colours([3, 13, 23, 999])
    assert len(set(colours.values())) == 4
    assert colours[3] == style.CLASS_COLOURS[3]


def test_models_differ_in_colour_or_marker():
    names = [f"m{i}" for i in range(49)]
    colours, markers = style.model_colours(names), style.model_markers(names)
    assert len({(colours[name], markers[name]) for name in names}) == 49


@pytest.mark.parametrize("colour", [*style.CLASS_COLOURS, style.RIGHT_CLASS, style.OTHER_CLASSES])
def test_text_on_every_area_is_legible(colour, contrast):
    assert contrast(colour, style.INK) > 4.5


def test_contrast_is_that_of_wcag(contrast):
    assert style.contrast("white", "black") == style.contrast("black", "white") == pytest.approx(21)
    for colour in style.CLASS_COLOURS:
        assert style.contrast(colour, style.INK) == pytest.approx(contrast(colour, style.INK))


def test_axes_that_are_none_are_told():
    figure = Figure()
    with pytest.raises(TypeError, match="axes must be one matplotlib Axes to draw into, got ndarray"):
        style.figure_of(figure.subplots(1, 2))
    removed = figure.add_subplot()
    assert style.figure_of(removed) is figure
    removed.remove()
    with pytest.raises(ValueError, match="they were removed"):
        style.figure_of(removed)
