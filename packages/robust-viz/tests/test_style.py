import pytest
from matplotlib.colors import to_rgb
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
def test_text_on_every_area_is_legible(colour):
    """Contrast by WCAG 2.1, whose level AA asks for 4.5."""

    def luminance(name):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert (luminance(colour) + 0.05) / (luminance(style.INK) + 0.05) > 4.5
