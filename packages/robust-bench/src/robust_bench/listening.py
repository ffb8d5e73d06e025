"""The warnings of an evaluation, kept for its result."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from robust_bench.warning import EvaluationWarning


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Keep the texts of evaluation warnings, in order and each once, that are shown inside the block as ever."""
    told: list[str] = []
    with warnings.catch_warnings():
        show: Any = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, EvaluationWarning) and str(message) not in told:
                told.append(str(message))
            show(message, category, *where, **more)

        warnings.showwarning = keep
        yield told
