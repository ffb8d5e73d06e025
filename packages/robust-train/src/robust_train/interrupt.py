"""Ctrl-C that ends a run between two updates, so that its last checkpoint is whole."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger("robust_train")


class Interrupted(KeyboardInterrupt):
    """The run was stopped on request, after its last checkpoint was written; the same call goes on from there."""


class Interruption:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextlib.contextmanager
def watch_interrupts() -> Iterator[Interruption]:
    """Note the first Ctrl-C (SIGINT) or SIGTERM instead of raising; a second one acts at once, as usual.

    A signal that the process was started to ignore, as the jobs in the background of a script ignore Ctrl-C, stays
    ignored. Handlers can be set in the main thread only; elsewhere nothing is watched.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    # None stands for a handler that was not set from Python and cannot be put back.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def note(number: int, _frame: FrameType | None) -> None:
        interruption.requested = True
        signal.signal(number, before[signal.Signals(number)])
        with contextlib.suppress(RuntimeError):  # it came in the middle of another line: that one has precedence
            logger.warning("stopping after this update; press again to stop at once")

    try:
        for number in before:
            signal.signal(number, note)
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
