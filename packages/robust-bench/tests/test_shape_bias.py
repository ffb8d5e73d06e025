"""Shape bias by counting, the trials that do not count, and the two averages over people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.shape_bias import cue_share, human_shape_bias, shape_bias

CLASSES = st.sampled_from(["cat", "dog", "oven", "car"])
TRIALS = st.lists(st.tuples(CLASSES | st.sampled_from(["na", None]), CLASSES, CLASSES), min_size=1, max_size=40).filter(
    lambda trials: any(shape != texture and answer in (shape, texture) for answer, shape, texture in trials)
)


@given(TRIALS)
def test_agrees_with_counting(trials):
    conflicts = [trial for trial in trials if trial[1] != trial[2]]
    shape = len([trial for trial in conflicts if trial[0] == trial[1]])
    texture = len([trial for trial in conflicts if trial[0] == trial[2]])
    columns = list(zip(*trials, strict=True))
    assert shape_bias(*columns) == shape / (shape + texture)
    assert cue_share(*columns) == (shape + texture) / len(conflicts)


@given(TRIALS)
def test_exchanging_shape_and_texture_gives_the_rest(trials):
    decisions, shapes, textures = zip(*trials, strict=True)
    assert shape_bias(decisions, textures, shapes) == pytest.approx(1.0 - shape_bias(decisions, shapes, textures))
    assert cue_share(decisions, textures, shapes) == cue_share(decisions, shapes, textures)


@given(TRIALS)
def test_trials_without_a_conflict_change_nothing(trials):
    more = [*trials, ("cat", "cat", "cat"), ("dog", "oven", "oven")]
    before, after = zip(*trials, strict=True), zip(*more, strict=True)
    assert shape_bias(*after) == shape_bias(*before)
    assert cue_share(*zip(*more, strict=True)) == cue_share(*zip(*trials, strict=True))


def test_no_answer_is_neither():
    shapes, textures = ["cat"] * 4, ["dog"] * 4
    assert shape_bias(["cat", "dog", "na", None], shapes, textures) == 0.5
    assert cue_share(["cat", "dog", "na", None], shapes, textures) == 0.5
    assert cue_share(["na", None, "na", "car"], shapes, textures) == 0.0
    assert shape_bias([1, 2, "na", None], [1] * 4, [2] * 4) == 0.5


@given(st.lists(st.tuples(CLASSES, CLASSES, CLASSES, st.sampled_from("ABC")), min_size=3, max_size=60))
def test_both_averages_over_people(trials):
    people = [[trial[:3] for trial in trials if trial[3] == name] for name in sorted({trial[3] for trial in trials})]
    if any(not any(s != t and a in (s, t) for a, s, t in mine) for mine in people):
        return
    columns = list(zip(*trials, strict=True))
    assert human_shape_bias(*columns) == shape_bias(*columns[:3])
    biases = [shape_bias(*zip(*mine, strict=True)) for mine in people]
    assert human_shape_bias(*columns, average="observers") == pytest.approx(sum(biases) / len(biases))


@pytest.mark.parametrize(
    ("columns", "kind", "message"),
    [
        ((["cat"], ["cat"], ["cat"]), ValueError, "the same class in all 1 trials: give trials in conflict"),
        ((["car"], ["cat"], ["dog"]), ValueError, "no decision is for the shape or the texture: .* not defined"),
        ((["na"], ["cat"], ["dog"]), ValueError, "no decision is for the shape or the texture"),
        ((["cat"], ["cat"], [3]), TypeError, "shapes and textures must both be names .*, got names and indices"),
        (([3], ["cat"], ["dog"]), TypeError, "decisions must be classes like the shapes, got indices among .* names"),
        ((["cat"], [3], [4]), TypeError, "decisions must be classes like the shapes, got names among .* indices"),
        ((["cat"], ["na"], ["dog"]), ValueError, "shapes must name a class in every trial: only a decision may be"),
        ((["cat"], ["dog"], [None]), ValueError, "textures must name a class in every trial"),
        ((["cat"], ["dog", "car"], ["car"]), ValueError, "got 1 of decisions, 2 of shapes, 1 of textures"),
    ],
)
def test_refuses_what_has_no_shape_bias(columns, kind, message):
    with pytest.raises(kind, match=message):
        shape_bias(*columns)


def test_refuses_people_without_a_shape_bias_by_name():
    columns = ["cat", "na"], ["cat", "cat"], ["dog", "dog"], ["Ann", "Ben"]
    assert human_shape_bias(*columns) == 1.0
    with pytest.raises(ValueError, match="observer 'Ben': no decision is for the shape or the texture"):
        human_shape_bias(*columns, average="observers")
    with pytest.raises(ValueError, match="average must be 'trials' or 'observers', got 'mean'"):
        human_shape_bias(*columns, average="mean")
    with pytest.raises(ValueError, match="got 2 of decisions, 2 of shapes, 2 of textures, 1 of observers"):
        human_shape_bias(*columns[:3], ["Ann"])
