"""The watchdog interrupts again where its first interruption is lost, and never after it is stopped."""

import time

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
    monkeypatch.setattr(Watchdog, "AGAIN", 0.2)
    watchdog = Watchdog(lambda: 0, lambda: None, slice_seconds=0.05, seconds=60)
    watchdog.start()
    try:
        times = [interrupted_within(20), interrupted_within(20)]
    finally:
        watchdog.stop()
    assert times == [True, True]
    assert not interrupted_within(0.5)
