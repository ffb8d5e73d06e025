"""Model soups: means of the weights of models that were fine-tuned from one."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_optim.held_out import HeldOutAccuracy, measure
from robust_optim.state_dicts import State, check_state, differences, is_mixable, wide_dtype

Ingredient = State | Callable[[], State]
"""A state dict, or a function without arguments that loads one, so that not all models need be in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Soup:
    """What `greedy_soup` made.

    Attributes:
        state: the mean of the chosen models' weights.
        chosen: their positions among the ingredients, in the order in which they went in, the best first.
        accuracy: held-out accuracy of the soup.
        accuracies: held-out accuracy of every ingredient alone.
    """

    state: dict[str, Tensor]
    chosen: tuple[int, ...]
    accuracy: float
    accuracies: tuple[float, ...]


@torch.no_grad()
def uniform_soup(ingredients: Iterable[Ingredient]) -> dict[str, Tensor]:
    """The mean of the weights of all models.

    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time", ICML 2022, arXiv:2203.05482. The mean runs in float32 at least and comes back in the types of the
    entries. Integers and booleans come from the first model. The running statistics of batch norms are averaged like
    weights: call `reestimate_batch_norm` on the result.

    Args:
        ingredients: state dicts with the same names, shapes, types and devices, or functions that load them. Beside the
            mean one is held at a time.

    Raises:
        TypeError: if an ingredient is something else.
        ValueError: if there is none, or they do not fit each other.

    Examples:
        >>> uniform_soup([{"weight": torch.tensor([0.0])}, {"weight": torch.tensor([3.0])}])
        {'weight': tensor([1.5000])}
    """
    like: dict[str, Tensor] = {}
    mean: dict[str, Tensor] = {}
    for place, ingredient in enumerate(ingredients):
        state = _load(ingredient, place, like)
        if place == 0:
            like, mean = _outline(state), _begin(state)
        else:
            for name, entry in state.items():
                mean[name] = _mix(mean[name], entry, 1 / (place + 1))
    if not like:
        raise ValueError("there is no ingredient: give at least one state dict that is not empty")
    return {name: entry.to(like[name].dtype) for name, entry in mean.items()}


@torch.no_grad()
def greedy_soup(
    ingredients: Sequence[Ingredient], accuracy: HeldOutAccuracy, *, accuracies: Sequence[float] | None = None
) -> Soup:
    """The mean of the weights of those models that help: each is kept only if held-out accuracy does not fall.

    Wortsman et al., ICML 2022, arXiv:2203.05482, recipe 1: models go in from the best to the worst; one stays if the
    mean with it is at least as accurate as the mean without. The soup is never worse on the held-out images than the
    best model. Held out means images that neither trained the models nor will be reported on. The mean itself is as in
    `uniform_soup`, which says what becomes of integers and batch norms.

    Args:
        ingredients: state dicts that fit each other, or functions that load them, which are called twice. Beside the
            mean and the mean to try one is held at a time.
        accuracy: measures a state dict on held-out images; larger is better: loads it into the model, for instance,
            and counts. It may not change the tensors.
        accuracies: that of every ingredient, if it is known; None measures them. Equal ones go in as they are given.

    Raises:
        TypeError: if an ingredient is neither a state dict nor loads one.
        ValueError: if there is none, they do not fit each other, an accuracy is not finite, or `accuracies`
            has another length.

    Examples:
        >>> states = [{"weight": torch.tensor(value)} for value in (0.0, 1.0, 5.0)]
        >>> soup = greedy_soup(states, lambda state: -abs(float(state["weight"]) - 0.6))  # best at 0.6
        >>> soup.state, soup.chosen
        ({'weight': tensor(0.5000)}, (1, 0))
    """
    if not ingredients:
        raise ValueError("there is no ingredient: give at least one state dict")
    if accuracies is None:
        accuracies = [
            measure(accuracy, dict(_load(ingredient, place, {})), f"ingredient {place}")
            for place, ingredient in enumerate(ingredients)
        ]
    elif len(accuracies) != len(ingredients) or not all(map(math.isfinite, accuracies)):
        raise ValueError(f"accuracies must be {len(ingredients)} finite numbers, one per ingredient, got {accuracies}")
    first, *others = sorted(range(len(ingredients)), key=lambda place: -accuracies[place])
    state = _load(ingredients[first], first, {})
    like, mean, chosen, best = _outline(state), _begin(state), [first], accuracies[first]
    for place in others:
        state = _load(ingredients[place], place, like)
        trial = {name: _mix(entry, state[name], 1 / (len(chosen) + 1)) for name, entry in mean.items()}
        reached = measure(
            accuracy,
            {name: entry.to(like[name].dtype) for name, entry in trial.items()},
            f"the mean of the ingredients {[*chosen, place]}",
        )
        if reached >= best:
            mean, best = trial, reached
            chosen.append(place)
    return Soup(
        state={name: entry.to(like[name].dtype, copy=True) for name, entry in mean.items()},
        chosen=tuple(chosen),
        accuracy=best,
        accuracies=tuple(accuracies),
    )


def _load(ingredient: Ingredient, place: int, like: State) -> State:
    if isinstance(ingredient, nn.Module):
        raise TypeError(f"ingredient {place} is a model: give its state_dict(), or the function state_dict itself")
    state = ingredient() if callable(ingredient) else ingredient
    check_state(state, f"ingredient {place}")
    if like and (found := differences(like, state)):
        raise ValueError(f"ingredient {place} is not of the same model as the first one used: {found}")
    return state


def _outline(state: State) -> dict[str, Tensor]:
    """Tensors with the shapes, types and devices of the entries that take no memory."""
    return {name: entry.new_empty(()).expand(entry.shape) for name, entry in state.items()}


def _begin(state: State) -> dict[str, Tensor]:
    return {
        name: entry.to(wide_dtype(entry.dtype) if is_mixable(entry) else entry.dtype, copy=True)
        for name, entry in state.items()
    }


def _mix(mean: Tensor, entry: Tensor, share: float) -> Tensor:
    return torch.lerp(mean, entry.to(mean.dtype), share) if is_mixable(mean) else mean
