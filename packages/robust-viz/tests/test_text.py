import pytest
from robust_viz._text import _width, fit, printable


def test_what_xml_forbids_is_replaced_and_the_rest_stays():
    assert printable("a\x00b\x1f\x7f\x85\ud800\uffff") == "a\ufffdb" + "\ufffd" * 5
    assert printable("tab\tline\n модель 猫 🙂") == "tab\tline\n модель 猫 🙂"


@pytest.mark.parametrize("text", ["", "short", "WWW " * 40, "x" * 500, "i" * 200, "resnet50.a1_in1k-" * 20])
@pytest.mark.parametrize("inches", [0.8, 2.4])
def test_text_fits_and_keeps_its_ends(text, inches):
    fitted = fit(text, inches, 9.5)
    lines = fitted.split("\n")
    assert len(lines) <= 2
    assert all(_width(line, 9.5) <= 1.2 * inches for line in lines)
    assert fitted[:2] == text[:2]
    assert fitted[-2:].strip() == text.strip()[-2:].strip()
    assert (fitted == text) == (_width(text, 9.5) <= inches)
