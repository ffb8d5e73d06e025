"""Mean and population deviation over decoders and resizers."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.decoders import DecoderScore, decoder_score


@given(st.dictionaries(st.tuples(st.text(max_size=3), st.integers(0, 9)), st.floats(0, 1), min_size=1, max_size=33))
def test_agrees_with_the_standard_library(accuracies):
    score = decoder_score(accuracies)
    assert score.mean == pytest.approx(statistics.fmean(accuracies.values()), abs=1e-15)
    assert score.deviation == pytest.approx(statistics.pstdev(accuracies.values()), abs=1e-15)
    assert score.cells == tuple(accuracies)


def test_the_deviation_is_that_of_the_population():
    assert decoder_score({"pil": 0.5, "opencv": 0.7}).deviation == pytest.approx(0.1)
    assert decoder_score({"pil": 0.7}) == DecoderScore(0.7, 0.0, ("pil",))


@pytest.mark.parametrize("accuracy", [76.1, -0.1, float("nan")])
def test_refuses_what_is_no_fraction_and_names_the_cell(accuracy):
    message = rf"the accuracy of \('pil', 'box'\) must be a fraction in \[0, 1\], got {accuracy}: not per cent"
    with pytest.raises(ValueError, match=message):
        decoder_score({("pil", "bilinear"): 0.7, ("pil", "box"): accuracy})


def test_refuses_no_cells():
    with pytest.raises(ValueError, match="accuracies is empty: give at least one cell"):
        decoder_score({})
