"""Rows in families: none is lost, none is in two, and what differs is said."""

from hypothesis import given
from hypothesis import strategies as st
from robust_bench import Row
from robust_bench.families import families, is_corruption, is_sweep


def attack(**settings):
    known = {"kind": "attack", "eps": 0.1} | settings
    return Row.accuracy(benchmark="b", condition="PGD", settings=known, correct=1, count=2, seconds=0.0)


ROWS = st.lists(
    st.builds(
        attack,
        eps=st.sampled_from([0.1, 0.2, 0.4]),
        step_size=st.sampled_from([None, 0.025, 0.05, 0.1]),
        steps=st.sampled_from([1, 2]),
    ),
    max_size=12,
)


@given(st.lists(ROWS, min_size=1, max_size=3), st.sampled_from(["eps", None]))
def test_every_row_is_in_one_cell_and_titles_differ(rows, size):
    found = families(rows, name=lambda row: row.condition, size=size)
    for position, mine in enumerate(rows):
        shown = [row for family in found for row in family.cells[position].values()]
        assert sorted(map(id, shown)) == sorted(map(id, mine))
    titles = [family.title for family in found]
    assert len(titles) == len(set(titles))


def test_a_step_size_may_scale_with_eps_or_stay_the_same():
    def sweep(step_size):
        return [attack(eps=eps, step_size=step_size(eps)) for eps in (0.1, 0.2, 0.4)]

    for step_size in (lambda eps: eps / 4, lambda _: 0.01, lambda _: None):
        assert len(families([sweep(step_size)], name=lambda _: "PGD", size="eps")) == 1
    both = families([[*sweep(lambda eps: eps / 4), *sweep(lambda _: 0.01)]], name=lambda _: "PGD", size="eps")
    assert [family.title for family in both] == ["PGD (step_size 0.25 eps)", "PGD (step_size 0.01)"]


def test_a_setting_that_only_one_has_is_said():
    both = families([[attack(), attack(loss="dlr")]], name=lambda _: "PGD")
    assert [family.title for family in both] == ["PGD (no loss)", "PGD (loss dlr)"]


def test_only_sensible_sizes_are_cells():
    for eps in (True, None, "0.1", [0.1], -1, 10**400):
        assert not is_sweep(attack(eps=eps))
    assert is_sweep(attack(eps=0))
    for settings in ({"severity": 6}, {"severity": 1.0}, {"severity": True}, {"severity": 1, "corruption": None}):
        assert not is_corruption(attack(**{"kind": "corruption", "corruption": "contrast"} | settings))
    assert is_corruption(attack(kind="corruption", corruption="contrast", severity=1))
