"""CPU time of a chunk of work; only the standard library, since the peers' environment uses it as well."""

import time
from collections.abc import Callable


def images_per_second(run: Callable[[], int], span: float) -> float:
    """Call until `span` CPU seconds are spent, at least once; `run` says how many images it changed."""
    images, start = 0, time.process_time()
    while True:
        images += run()
        spent = time.process_time() - start
        if spent >= span:
            return images / spent
