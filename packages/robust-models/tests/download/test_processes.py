"""Several processes and one file: one works, the others wait; a killed one leaves what the next can go on with."""

import importlib
import logging
import multiprocessing
import os
import signal
import threading

import pytest
from robust_models.entry import Entry
from robust_models.locking import locked

downloading = importlib.import_module("robust_models.download")  # the package has a function of that name


def work(url, tell):
    """Download in a process of its own and tell each step, then the path."""

    class Tell(logging.Handler):
        def emit(self, record):
            tell.send(record.getMessage())

    logging.getLogger("robust_models").addHandler(Tell())
    logging.getLogger("robust_models").setLevel(logging.INFO)
    downloading.on_terminal = lambda name: lambda done, total: tell.send(f"{done} bytes")
    entry = Entry(name="zoo/small", arch="resnet18", urls=(url,))
    tell.send(str(downloading.download(entry, allow_http=True)))


@pytest.fixture
def start(web):
    running = []

    def start():
        context = multiprocessing.get_context("fork")
        hear, tell = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(web.url("/w.pt"), tell))
        process.start()
        tell.close()
        running.append((process, hear))
        return process, hear

    yield start
    for process, hear in running:
        process.kill()
        process.join()
        hear.close()


def until(hear, text):
    """Wait until a process says `text`."""
    said = []
    while not said or text not in said[-1]:
        assert hear.poll(60), said
        said.append(hear.recv())


def halting(file, content, go_on):
    """An answer that stops in the middle until `go_on` is set."""

    def answer(handler):
        file(content=content, stop_after=len(content) // 2)(handler)
        handler.wfile.flush()
        go_on.wait(60)
        handler.wfile.write(content[len(content) // 2 :])

    return answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork need not import torch again")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.* is not https and its sha256 is not known")
@pytest.mark.parametrize("killed", [False, True], ids=["the first ends", "the first is killed"])
def test_two_at_once(killed, web, file, weights, start, cache):
    half, go_on = len(weights) // 2, threading.Event()
    web["/w.pt"] = halting(file, weights, go_on)
    first, first_says = start()
    until(first_says, f"{half} bytes")
    _, second_says = start()
    until(second_says, "another process works on")
    web["/w.pt"] = file(content=weights)
    if killed:
        os.kill(first.pid, signal.SIGKILL)
    else:
        go_on.set()
    place = cache / "zoo" / "small" / "w.pt"
    until(second_says, str(place))
    go_on.set()
    assert place.read_bytes() == weights
    assert [headers.get("range") for _, headers in web.asked] == [None, f"bytes={half}-"][: 1 + killed]


def test_threads_wait_for_each_other_too(tmp_path):
    inside, order = threading.Event(), []

    def other():
        inside.wait()
        with locked(tmp_path / "file"):
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with locked(tmp_path / "file"):
        inside.set()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_the_lock_is_free_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / "new" / "file"):
            raise KeyError
