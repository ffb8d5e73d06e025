"""Which corruptions and severities a copy has."""

import pytest
from robust_bench.corruption_cells import SETS, chosen_corruptions, chosen_severities
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS


def test_words_stand_for_several():
    assert chosen_corruptions("common") == CORRUPTIONS
    assert chosen_corruptions("extra") == EXTRA_CORRUPTIONS
    assert chosen_corruptions("all") == CORRUPTIONS + EXTRA_CORRUPTIONS
    groups = [chosen_corruptions(name) for name in ("noise", "blur", "weather", "digital")]
    assert [len(group) for group in groups] == [3, 4, 4, 4]
    assert sum(groups, ()) == CORRUPTIONS  # none of the extra ones
    assert set(SETS) == {"common", "extra", "all", "noise", "blur", "weather", "digital"}


@pytest.mark.parametrize("given", ["fog, snow,weather,spatter", ["spatter", "snow", "weather"]])
def test_names_come_once_in_the_published_order(given):
    assert chosen_corruptions(given) == ("snow", "frost", "fog", "brightness", "spatter")


@pytest.mark.parametrize(
    ("given", "message"), [("fogg", "unknown corruption 'fogg'"), (" ,", "no corruptions"), ([], "no")]
)
def test_other_names_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        chosen_corruptions(given)


@pytest.mark.parametrize(
    ("given", "expected"), [("1,2,3,4,5", (1, 2, 3, 4, 5)), ([5, 1], (1, 5)), (3, (3,)), ("4, 4", (4,))]
)
def test_severities(given, expected):
    assert chosen_severities(given) == expected


@pytest.mark.parametrize("given", ["", "0", [6], 7, "1-5", [], True])
def test_other_severities_are_refused(given):
    with pytest.raises(ValueError, match="severities must be some of 1, 2, 3, 4, 5"):
        chosen_severities(given)
