"""Other activations for a model."""

from collections.abc import Callable

from timm.layers.activations import GELU
from torch import nn

from robust_models.layers.conversion import find_layers, like_tensors_of, record, replace_layers, take_place

_SAME: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {nn.GELU: (nn.GELU, GELU)}
"""Where timm has a class of its own for what torch has."""


def convert_activation(
    model: nn.Module,
    to: Callable[[], nn.Module],
    from_: type[nn.Module] | tuple[type[nn.Module], ...] = nn.ReLU,
    *,
    include: str | None = None,
    exclude: str | None = None,
) -> nn.Module:
    """Replace every activation of one kind by another, also those that timm fuses with its batch norms.

    Each gets its own. Activations that a model calls as functions are no layers and stay. The other way round,
    `convert_activation(model, nn.ReLU, nn.SiLU)`, gives the first model back.

    Args:
        model: changed in place.
        to: called once for each, such as `nn.SiLU`, `LPReLU.v2` or `partial(nn.LeakyReLU, 0.1)`.
        from_: class or classes to replace, and what is derived from them.
        include: regular expression of the layers to convert; None takes all.
        exclude: regular expression of the layers to leave out.

    Returns:
        The model, or where the model itself is such an activation, the new one.

    Raises:
        ValueError: if there is no such activation.

    Examples:
        >>> convert_activation(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.GELU)[1]
        GELU(approximate='none')
    """
    given = from_ if isinstance(from_, tuple) else (from_,)
    kinds = tuple(same for kind in given for same in _SAME.get(kind, (kind,)))
    wanted_kind = type(to())
    found = find_layers(
        model,
        lambda module: isinstance(module, kinds),
        what=" or ".join(kind.__name__ for kind in given),
        done=lambda module: type(module) is wanted_kind and not isinstance(module, kinds),
        include=include,
        exclude=exclude,
    )
    new = {old: take_place(like_tensors_of(to(), model), old) for old in dict.fromkeys(found.values())}
    model = replace_layers(model, {name: new[old] for name, old in found.items()})
    options = {"to": wanted_kind.__name__, "from_": [kind.__name__ for kind in given]}
    return record(model, "activation", found, {**options, "include": include, "exclude": exclude})
