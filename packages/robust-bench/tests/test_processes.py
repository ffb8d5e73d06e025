"""Calls in processes."""

import contextlib
import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from robust_bench.processes import in_processes


def square(number):
    return number**2, os.getpid()


def mark(folder, number):
    """Leave a file; the number 3 fails."""
    if number == 3:
        raise ValueError("three")
    (folder / f"{number}").touch()


def die(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [0, 1, 2, 9])
def test_every_number_comes_once_with_its_result(workers):
    found = dict(in_processes(square, [5, 1, 4, 0, 7], workers))
    assert {number: result for number, (result, _) in found.items()} == {5: 25, 1: 1, 4: 16, 0: 0, 7: 49}
    processes = {process for _, process in found.values()}
    assert (processes == {os.getpid()}) == (workers == 0)
    assert len(processes) <= max(1, workers)


def test_nothing_is_nothing():
    assert list(in_processes(square, [], 2)) == list(in_processes(square, [], 0)) == []


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_a_call_raises_is_raised_here_and_no_process_is_left(tmp_path, workers):
    with pytest.raises(ValueError, match=r"^three$"):
        list(in_processes(partial(mark, tmp_path), range(3000), workers))
    left = sorted(int(path.name) for path in tmp_path.iterdir())
    assert {0, 1, 2} <= set(left)
    assert len(left) < 2000  # most of the others were not begun
    assert not multiprocessing.active_children()


def test_who_stops_early_leaves_no_process_behind():
    with contextlib.closing(in_processes(square, range(1000), 2)) as results:
        assert next(results)[0] in range(4)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_dies_is_an_error(workers):
    with pytest.raises(OSError, match=r"a worker process died.* fewer --workers"):
        list(in_processes(die, range(20), workers))


def tell(folder, number):
    (folder / f"{os.getpid()}").touch()
    time.sleep(0.02)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    main = os.fork()
    if not main:
        list(in_processes(partial(tell, tmp_path), range(100_000), 2))
        os._exit(0)
    while len(workers := list(tmp_path.iterdir())) < 2:
        assert os.waitpid(main, os.WNOHANG) == (0, 0)
        time.sleep(0.001)
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    while any(_lives(worker.name) for worker in workers):  # else the test never ends
        time.sleep(0.001)


def _lives(process):
    """Whether a process is there, and not just waiting to be buried."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
