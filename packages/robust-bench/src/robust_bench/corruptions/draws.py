"""The random numbers of one corruption, apart from what is done with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Tensors by name, each with the image as first axis; empty for a corruption without randomness.

    It survives `torch.save` and `torch.load`, and `draws[index]` gives the draws of some of the images, so that
    numbers made elsewhere (for a comparison with another implementation) can be injected into `apply`.

    Args:
        count: number of images N.
        fields: name -> tensor (N, ...), e.g. `{"normal": (N, C, H, W)}`.

    Raises:
        ValueError: if a tensor's first axis is not `count` long.

    Examples:
        >>> draws = Draws(count=3, fields={"normal": torch.zeros(3, 1, 8, 8)})
        >>> len(draws[1:])
        2
    """

    count: int
    fields: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, values in self.fields.items():
            if values.ndim == 0 or values.shape[0] != self.count:
                raise ValueError(
                    f"draws of {self.count} images need that length on their first axis, "
                    f"got {name!r} of shape {tuple(values.shape)}"
                )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: slice | Tensor) -> "Draws":
        if isinstance(index, slice):
            count = len(range(*index.indices(self.count)))
            return Draws(count=count, fields={name: values[index] for name, values in self.fields.items()})
        taken = {name: values[index.to(values.device, non_blocking=True)] for name, values in self.fields.items()}
        count = int(index.sum()) if index.dtype == torch.bool else len(index)
        return Draws(count=count, fields=taken)

    @classmethod
    def joined(cls, parts: Sequence["Draws"]) -> "Draws":
        """Put the draws of several batches, which have the same fields, one after the other."""
        fields = {name: torch.cat([part.fields[name] for part in parts]) for name in parts[0].fields}
        return cls(count=sum(map(len, parts)), fields=fields)

    def field(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Give the field `name`, checked to have `shape`.

        Raises:
            ValueError: if it is missing or shaped otherwise; the message names both.
        """
        if name not in self.fields:
            given = ", ".join(sorted(self.fields)) or "nothing"
            raise ValueError(f"this corruption needs draws named {name!r} of shape {shape}, got {given}: use sample()")
        values = self.fields[name]
        if tuple(values.shape) != shape:
            raise ValueError(f"draws {name!r} must have the shape {shape}, got {tuple(values.shape)}: use sample()")
        return values


torch.serialization.add_safe_globals([Draws])  # so that torch.load reads them back with weights_only=True
