"""Calls of a function in processes that end with the one that started them."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any

Results = Generator[tuple[int, Any], None, None]

_AHEAD = 2  # calls per process that are under way, so that results that nobody has taken do not pile up

# Of a worker process: what it calls, and whether nobody wants more.
_function: Callable[[int], Any]
_stop: Event


def in_processes(function: Callable[[int], Any], numbers: Sequence[int], workers: int) -> Results:
    """Call a function with each of some numbers, and give both as results come, in any order.

    The processes start at once. Where one call fails, or nobody wants more, those under way are finished.

    Args:
        function: can be pickled, and so can its results.
        numbers: its arguments.
        workers: processes; with 0 the calls are made here, one after another.

    Raises:
        OSError: if a process dies.
        Exception: what the function raised.
    """
    if not workers:
        return ((number, function(number)) for number in numbers)
    stop = multiprocessing.Event()
    pool = ProcessPoolExecutor(min(workers, max(1, len(numbers))), initializer=_begin, initargs=(function, stop))
    rest = iter(numbers)
    begun = {pool.submit(_call, number) for number in itertools.islice(rest, _AHEAD * workers)}
    return _results(pool, stop, begun, rest)


def _results(
    pool: ProcessPoolExecutor, stop: Event, begun: set[Future[tuple[int, Any]]], rest: Iterator[int]
) -> Results:
    try:
        while begun:
            done, begun = wait(begun, return_when=FIRST_COMPLETED)
            begun |= {pool.submit(_call, number) for number in itertools.islice(rest, len(done))}
            for each in done:
                yield each.result()
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process died, as it does when memory is short: what is finished is kept, so give the same "
            "command again, perhaps with fewer --workers"
        ) from error
    finally:
        stop.set()  # for calls that can no longer be cancelled
        pool.shutdown(cancel_futures=True)


def _begin(function: Callable[[int], Any], stop: Event) -> None:
    """Prepare a process: Ctrl-C is for the one that started it, which lets this one finish its call."""
    global _function, _stop
    _function, _stop = function, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave no process behind when the one that started it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(number: int) -> tuple[int, Any]:
    return number, None if _stop.is_set() else _function(number)
