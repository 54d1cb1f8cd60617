"""The watchdog interrupts again where its first interruption is lost, and never after it is stopped."""

import ctypes
import time
from types import SimpleNamespace

from gemm_lessons.sim.watchdog import TimeUp, Watchdog


def interrupted_within(seconds):
    """Compute until the watchdog interrupts, or nothing has come."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            pass
    except TimeUp:
        return True
    return False


def test_a_lost_interruption_comes_again(monkeypatch):
    monkeypatch.setattr(Watchdog, "AGAIN", 2.0)
    watchdog = Watchdog(lambda: 0, lambda: None, slice_seconds=0.05, seconds=60)
    watchdog.start()
    try:
        times = [interrupted_within(20), interrupted_within(20)]
    finally:
        watchdog.stop()
    assert times == [True, True]
    assert not interrupted_within(0.5)


def test_it_stops_although_it_fires_meanwhile(monkeypatch):
    real = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def late(thread, error):  # the watchdog holds its lock here, and whoever stops it waits for that
        time.sleep(0.3)
        return real(thread, error)

    slow = SimpleNamespace(PyThreadState_SetAsyncExc=late)
    names = {"pythonapi": slow, "c_ulong": ctypes.c_ulong, "py_object": ctypes.py_object}
    monkeypatch.setattr("gemm_lessons.sim.watchdog.ctypes", SimpleNamespace(**names))
    watchdog = Watchdog(lambda: 0, lambda: None, slice_seconds=0.05, seconds=60)
    watchdog.start()
    end = time.process_time() + 0.16
    while time.process_time() < end:
        pass
    time.sleep(0.05)
    stopping = time.monotonic()
    watchdog.stop()
    assert watchdog.fired
    assert time.monotonic() - stopping < 4  # it used to wait for ever
    assert not interrupted_within(0.2)
