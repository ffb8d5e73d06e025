import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_optim.soups import greedy_soup, uniform_soup
from torch import nn


def model(seed, dtype=torch.float64):
    noise = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(3, 4, generator=noise).to(dtype),
        "running_mean": torch.randn(4, generator=noise).to(dtype),
        "count": torch.tensor(100 + seed),
    }


FLOATING = ["weight", "running_mean"]


def mean_of(states, name):
    return torch.stack([state[name] for state in states]).mean(dim=0)


# The uniform soup


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_uniform_soup_is_the_mean(count):
    states = [model(seed) for seed in range(count)]
    soup = uniform_soup(states)
    assert list(soup) == list(states[0])
    for name in FLOATING:
        torch.testing.assert_close(soup[name], mean_of(states, name), rtol=1e-12, atol=1e-12)
    assert soup["count"] == 100  # of the first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_averaged_in_float32_and_rounded_once(dtype):
    # 256 + 1 is not a number of bfloat16: a mean in low precision would never leave 256.
    states = [{"w": torch.tensor([256.0]).to(dtype)}] + [{"w": torch.tensor([260.0]).to(dtype)}] * 7
    soup = uniform_soup(states)
    assert soup["w"].dtype == dtype
    assert torch.equal(soup["w"], torch.tensor([259.5]).to(dtype))


def test_a_soup_of_equal_models_is_that_model_bit_for_bit():
    state = model(0, torch.float32)
    soup = uniform_soup([state] * 9)
    assert all(torch.equal(soup[name], state[name]) for name in state)


def test_complex_entries_are_averaged():
    soup = uniform_soup([{"z": torch.tensor([1 + 2j])}, {"z": torch.tensor([3 - 4j])}])
    torch.testing.assert_close(soup["z"], torch.tensor([2 - 1j]))


def test_ingredients_may_be_loaded_one_by_one(tmp_path):
    states = [model(seed) for seed in range(4)]
    for place, state in enumerate(states):
        torch.save(state, tmp_path / f"{place}.pt")
    loaders = [lambda place=place: torch.load(tmp_path / f"{place}.pt", weights_only=True) for place in range(4)]
    expected = uniform_soup(states)
    for soup in (uniform_soup(loaders), uniform_soup(load() for load in loaders), uniform_soup(iter(states))):
        assert all(torch.equal(soup[name], expected[name]) for name in expected)


def test_the_soup_is_new_and_the_ingredients_stay():
    layers = [nn.Linear(2, 2) for _ in range(2)]
    states = [layer.state_dict(keep_vars=True) for layer in layers]
    before = [{name: tensor.detach().clone() for name, tensor in state.items()} for state in states]
    for soup in (
        uniform_soup(states),
        uniform_soup(states[:1]),
        greedy_soup(states, lambda state: 1.0).state,
        greedy_soup(states[:1], lambda state: 1.0).state,
    ):
        for tensor in soup.values():
            assert not tensor.requires_grad
            tensor.zero_()
    for state, old in zip(states, before, strict=True):
        assert all(torch.equal(state[name], old[name]) for name in old)


# The greedy soup


def read_from_the_paper(states, accuracy):
    """Recipe 1 to the letter: means are formed anew from the list of ingredients, accuracies asked for anew."""

    def average(members):
        return {name: mean_of([states[i] for i in members], name) for name in FLOATING}

    order = sorted(range(len(states)), key=lambda i: accuracy(states[i]), reverse=True)
    ingredients = []
    for i in order:
        if not ingredients or accuracy(average([*ingredients, i])) >= accuracy(average(ingredients)):
            ingredients = [*ingredients, i]
    return ingredients, average(ingredients)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_the_greedy_soup_is_that_of_the_paper(seed, count):
    states = [model(seed + place) for place in range(count)]
    target = torch.randn(3, 4, generator=torch.Generator().manual_seed(-1 - seed), dtype=torch.float64) / 3

    def accuracy(state):
        return -float((state["weight"] - target).square().sum())

    soup = greedy_soup(states, accuracy)
    chosen, mean = read_from_the_paper(states, accuracy)
    assert list(soup.chosen) == chosen
    for name in FLOATING:
        torch.testing.assert_close(soup.state[name], mean[name], rtol=1e-12, atol=1e-12)
    assert soup.accuracies == tuple(accuracy(state) for state in states)
    assert soup.accuracy == pytest.approx(accuracy(mean), rel=1e-10)
    assert soup.accuracy >= max(soup.accuracies)
    assert soup.state["count"] == 100 + seed + chosen[0]


def test_a_table_of_accuracies_decides_who_goes_in():
    """Models are sets of members here: the mean of one-hot vectors shows who is in the soup."""
    states = [{"who": torch.eye(4)[place]} for place in range(4)]
    table = {
        frozenset({0}): 0.70, frozenset({1}): 0.80, frozenset({2}): 0.75, frozenset({3}): 0.60,
        frozenset({1, 2}): 0.79,  # 2 harms
        frozenset({1, 0}): 0.80,  # 0 does not help, and does no harm
        frozenset({1, 0, 3}): 0.85,
    }  # fmt: skip
    asked = []

    def accuracy(state):
        asked.append(frozenset(state["who"].nonzero().flatten().tolist()))
        return table[asked[-1]]

    soup = greedy_soup(states, accuracy)
    assert soup.chosen == (1, 0, 3)
    assert soup.accuracy == 0.85
    assert soup.accuracies == (0.70, 0.80, 0.75, 0.60)
    torch.testing.assert_close(soup.state["who"], torch.tensor([1 / 3, 1 / 3, 0, 1 / 3]))
    assert asked == [frozenset(s) for s in ({0}, {1}, {2}, {3}, {1, 2}, {1, 0}, {1, 0, 3})]

    asked.clear()
    known = greedy_soup(states, accuracy, accuracies=[0.70, 0.80, 0.75, 0.60])
    assert (known.chosen, known.accuracy, known.accuracies) == (soup.chosen, soup.accuracy, soup.accuracies)
    assert asked == [frozenset(s) for s in ({1, 2}, {1, 0}, {1, 0, 3})]


def test_equal_models_go_in_as_they_are_given():
    states = [{"w": torch.tensor([float(place)])} for place in range(5)]
    assert greedy_soup(states, lambda state: 0.5).chosen == (0, 1, 2, 3, 4)


def test_all_models_that_help_make_the_uniform_soup():
    states = [model(seed, torch.float32) for seed in range(5)]
    soup, uniform = greedy_soup(states, lambda state: 0.5).state, uniform_soup(states)
    assert all(torch.equal(soup[name], uniform[name]) for name in uniform)


def test_the_accuracy_is_that_of_what_comes_back():
    """In low precision the mean that is measured is the rounded one, and the next goes on from the exact one."""
    states = [{"w": torch.tensor([value], dtype=torch.bfloat16)} for value in (256.0, 258.0, 258.0)]
    seen = []

    def accuracy(state):
        assert state["w"].dtype == torch.bfloat16
        seen.append(state["w"].item())
        return 0.5

    soup = greedy_soup(states, accuracy)
    assert seen == [256, 258, 258, 256, 258]  # 257 and 257.33 rounded to even numbers
    assert soup.state["w"].item() == 258


def test_models_are_loaded_one_at_a_time():
    order = list(range(6))
    random.Random(0).shuffle(order)
    loaded = []

    def loader(place):
        def load():
            loaded.append(place)
            return {"w": torch.tensor([float(order[place])])}

        return load

    soup = greedy_soup([loader(place) for place in range(6)], lambda state: float(state["w"]))
    assert order[soup.chosen[0]] == 5
    assert len(soup.chosen) == 1
    assert loaded == [*range(6), *sorted(range(6), key=lambda place: -order[place])]


def test_a_model_that_keeps_what_it_was_given_does_not_keep_the_soup():
    layer = nn.Linear(2, 2)

    def accuracy(state):
        layer.load_state_dict(state, assign=True)
        return 0.5

    soup = greedy_soup([nn.Linear(2, 2).state_dict() for _ in range(3)], accuracy)
    before = soup.state["weight"].clone()
    nn.init.zeros_(layer.weight)
    assert torch.equal(soup.state["weight"], before)


# Mistakes


@pytest.mark.parametrize("soup", [uniform_soup, lambda states: greedy_soup(states, lambda state: 0.5)])
def test_ingredients_that_do_not_fit_are_refused_with_their_place(soup):
    with pytest.raises(ValueError, match="there is no ingredient"):
        soup([])
    with pytest.raises(
        ValueError, match="ingredient 1 is not of the same model as the first one used: missing 'count'"
    ):
        soup([model(0), {name: model(1)[name] for name in FLOATING}])
    with pytest.raises(ValueError, match=r"ingredient 1 .*'weight' has dtype torch.float32 instead of torch.float64"):
        soup([model(0), model(1, torch.float32)])
    with pytest.raises(ValueError, match=r"ingredient 2 .*'weight' has shape \(3,\) instead of \(3, 4\)"):
        soup([model(0), model(1), {**model(2), "weight": torch.ones(3)}])
    with pytest.raises(TypeError, match=r"ingredient 0 is a model: give its state_dict\(\), or the function"):
        soup([nn.Linear(2, 2)])
    with pytest.raises(TypeError, match=r"ingredient 1 must be a state dict, such as .* got str"):
        soup([model(0), "model.pt"])
    with pytest.raises(TypeError, match=r"ingredient 0 must be a state dict, such as .* got NoneType"):
        soup([lambda: None])
    with pytest.raises(TypeError, match="ingredient 0 must hold tensors alone, but its entry 'model' is of type dict"):
        soup([{"model": model(0)}])


def test_accuracies_that_are_none_are_refused():
    states = [model(seed) for seed in range(2)]
    with pytest.raises(ValueError, match="held-out accuracy of ingredient 0 is nan"):
        greedy_soup(states, lambda state: float("nan"))
    with pytest.raises(ValueError, match=r"held-out accuracy of the mean of the ingredients \[1, 0\] is inf"):
        greedy_soup(states, lambda state: float("inf"), accuracies=[0.1, 0.2])
    for wrong in ([0.1, 0.2, 0.3], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="accuracies must be 2 finite numbers, one per ingredient, got"):
            greedy_soup(states, lambda state: 0.5, accuracies=wrong)
