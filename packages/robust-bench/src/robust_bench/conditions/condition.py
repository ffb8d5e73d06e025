"""What a condition is: something that is done to the images before the model sees them."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from robust_attacks import ImageRandom
from torch import Tensor

from robust_bench._checks import Model

if TYPE_CHECKING:
    from robust_bench.records import Records


class Condition(Protocol):
    """One column of an evaluation: a label, its settings, and the change itself."""

    @property
    def label(self) -> str:
        """Name the condition for readers, e.g. "PGD-20 × 3, Linf 0.15"."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Give everything that sets it, as JSON values, with "kind"."""
        ...

    @property
    def only_right(self) -> bool:
        """Tell whether only images that are right when clean are changed; the others count as wrong unchanged."""
        ...

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Change float images (N, C, H, W) in [0, 1] into others of the same shape and range."""
        ...


@runtime_checkable
class Measuring(Protocol):
    """A condition that makes the records of images itself, in place of changing them.

    A class attribute `dimensions` says how many axes a batch of images has, 5 for sequences of frames; 4 otherwise.
    """

    def measure(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> "Records":
        """Look at images on the model's device, and give records on the CPU."""
        ...
