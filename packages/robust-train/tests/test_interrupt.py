"""Ctrl-C between two updates."""

import os
import signal
import threading

import pytest
from robust_train.interrupt import watch_interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_handlers_come_back(number, caplog):
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with watch_interrupts() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), number)
        assert interruption.requested
    assert caplog.messages == ["stopping after this update; press again to stop at once"]
    assert {one: signal.getsignal(one) for one in before} == before


def test_the_second_ctrl_c_acts_at_once():
    with watch_interrupts() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fixture usual_interrupts puts it back
    with watch_interrupts() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interruption.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_watches_nothing():
    found = []

    def work():
        with watch_interrupts() as interruption:
            found.append(interruption.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
