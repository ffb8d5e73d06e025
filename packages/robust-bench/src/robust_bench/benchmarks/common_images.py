"""Images that several parts have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robust_bench.answers import Answers


def in_common(answers: Sequence[Answers]) -> list[npt.NDArray[np.int64]]:
    """Find the images that all of some answers are about: for each of them the positions, in one order.

    Images are the same where their names are, or, in data sets without names, their ids. One that was skipped in a
    part is left out of all.
    """
    keys: list[Sequence[Any]] = [each.ids.tolist() if each.names is None else each.names for each in answers]
    if all(some == keys[0] for some in keys[1:]):
        return [np.arange(len(keys[0]))] * len(keys)
    shared = set(keys[0]).intersection(*keys[1:])
    ordered = [key for key in keys[0] if key in shared]
    found = []
    for some in keys:
        place = {key: number for number, key in enumerate(some)}
        found.append(np.asarray([place[key] for key in ordered], dtype=np.int64))
    return found
