"""An optimizer around an optimizer, with the groups and the state of the one inside."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robust_optim.checks import check_base, check_radius


class Wrapper(torch.optim.Optimizer):
    """Share the parameter groups and the state of a built optimizer, each group with a radius of its own.

    Args:
        base: the optimizer to wrap.
        radius: for the groups that have none of their own; what an earlier wrapper wrote does not count as own.
        **settings: further attributes.

    Attributes:
        base: the wrapped optimizer.
        updates: how many times the base optimizer has stepped; updates that a scaler skipped do not count.
        directions: what a method remembers from one update to the next, per parameter.

    Raises:
        TypeError: if `base` cannot be wrapped, or a radius is not a number.
        ValueError: if a radius is negative or not finite.
    """

    radius: ClassVar[str] = "rho"

    base: torch.optim.Optimizer
    updates: int
    directions: dict[nn.Parameter, Tensor]
    _ascended: bool

    def __init__(self, base: torch.optim.Optimizer, radius: float, **settings: object) -> None:
        check_base(base, self._name, self.radius)
        check_radius(radius, self.radius)
        for group in base.param_groups:
            self._set_radius(group, radius)
        # Not Optimizer.__init__, which would make groups and state of its own: both belong to the base. Restoring
        # from a state is the public way to set up the rest (hooks, profiling) around attributes that exist already.
        defaults = {**base.defaults, self.radius: radius}
        self.__setstate__({"base": base, "updates": 0, "directions": {}, "defaults": defaults, **settings})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set up the attributes that a copy or a pickle does not carry."""
        self._ascended = False
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_between_passes("copied")
        # A scheduler puts a `step` here, which drives this very optimizer: a copy has the one of its class.
        return {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "step"}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the base optimizer, the same objects, each with its radius."""
        groups: list[dict[str, Any]] = self.base.param_groups
        return groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The state of the base optimizer, the same object."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer; its radius is its own, or else the one given to the constructor."""
        group = dict(param_group)
        self._set_radius(group, self.defaults[self.radius])
        self.base.add_param_group(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters."""
        self.base.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state of the base optimizer (momentum, learning rates, radii, ...) and the method's own beside it.

        Raises:
            RuntimeError: between `ascend` and `descend`, when the weights are perturbed.
        """
        self._refuse_between_passes("saved")
        index = {parameter: i for i, parameter in enumerate(self._parameters())}
        own = {
            **self._identity(),
            "updates": self.updates,
            "directions": {index[parameter]: direction for parameter, direction in self.directions.items()},
        }
        return {**self.base.state_dict(), "wrapper": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave; the steps that follow are those of an unbroken run, bit for bit.

        Raises:
            ValueError: if the state is of another method, another base optimizer or other parameter groups.
            RuntimeError: between `ascend` and `descend`.
        """
        self._refuse_between_passes("loaded")
        mine = self._identity()
        theirs = state_dict.get("wrapper")
        if theirs is None:
            raise ValueError(
                f"the state has no entry 'wrapper', so it is not of {self._name} but of a plain optimizer: load it "
                "with optimizer.base.load_state_dict(state)"
            )
        if {key: theirs.get(key) for key in mine} != mine:
            raise ValueError(f"cannot load the state of {_describe(theirs)} into {_describe(mine)}")
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != "wrapper"})
        parameters = self._parameters()
        self.updates = theirs["updates"]
        self.directions = {
            parameters[i]: direction.to(parameters[i].device, copy=True)
            for i, direction in theirs["directions"].items()
        }

    def _identity(self) -> dict[str, Any]:
        return {"version": 1, "method": self._name, "base": type(self.base).__name__}

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _radius_of(self, group: dict[str, Any]) -> float:
        return check_radius(group.get(self.radius, self.defaults[self.radius]), self.radius)

    def _set_radius(self, group: dict[str, Any], value: float) -> None:
        """Give a parameter group `value`, unless the caller has put another there.

        What a wrapper writes it writes twice, so that the next one around the same base can tell the two apart, also
        after the group has been through a `state_dict`.
        """
        name, mark = self.radius, f"{self.radius}_by_wrapper"
        if name not in group or (mark in group and group[name] == group[mark]):
            group[name] = group[mark] = value
        check_radius(group[name], name)

    def _refuse_between_passes(self, what: str) -> None:
        if self._ascended:
            raise RuntimeError(f"the weights are perturbed and cannot be {what}: call descend() or restore() first")


def _describe(wrapper: dict[str, Any]) -> str:
    return f"{wrapper.get('method')}({wrapper.get('base')}), version {wrapper.get('version')}"
