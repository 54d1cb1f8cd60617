"""Ends loops that never end.

What counts is the time that the process computes, so that a busy machine ends nothing that is on its way; a
kernel that waits for something outside is ended by the clock on the wall, `PATIENCE` times later.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable

PATIENCE = 4  # a process that computes gets a quarter of a processor at least


class TimeUp(BaseException):
    """Raised by the watchdog inside the kernel's thread; no ``except Exception`` catches it."""


class Watchdog:
    """A thread that interrupts the launching thread when it takes too long."""

    PERIOD = 0.05
    AGAIN = 5.0  # seconds from one interruption to the next, should the first be lost

    def __init__(
        self,
        tick: Callable[[], int],
        nudge: Callable[[], None],
        slice_seconds: float,
        seconds: float,
    ) -> None:
        """Prepare; :meth:`start` starts the clock.

        Args:
            tick: A number that changes whenever another simulated thread runs.
            nudge: Called once a tenth of ``slice_seconds`` have passed without a change: others
                may have to run before this thread can go on.
            slice_seconds: Longest computing time without a change.
            seconds: Longest computing time in all.
        """
        self._tick = tick
        self._nudge = nudge
        self._slice = slice_seconds
        self._total = seconds
        self._target = threading.get_ident()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="simulator watchdog")
        self.fired = False

    def start(self) -> None:
        """Start the clock."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the clock, and swallow an interruption that is on its way."""
        # why: an asynchronous exception arrives at some later bytecode; it must not hit the
        # student's own code after the launch.
        while not self._stop.is_set():  # why again: it may arrive just here, before the event is set
            with contextlib.suppress(TimeUp), self._lock:
                self._stop.set()
        with contextlib.suppress(TimeUp):
            for _ in range(1000 if self.fired else 0):
                pass  # an asynchronous exception is raised at the end of a loop's round
        self._thread.join()

    def _run(self) -> None:
        began = since = time.process_time()
        last_moment = time.monotonic() + PATIENCE * self._total
        last = self._tick()
        nudged = False
        while not self._stop.wait(self.PERIOD):
            now, tick = time.process_time(), self._tick()
            if tick != last:
                last, since, nudged = tick, now, False
            if now - since > self._slice / 10 and not nudged:
                nudged = True
                self._nudge()
            late = time.monotonic() > last_moment
            if late or now - since > self._slice or now - began > self._total:
                self._fire()
                # why again: one that arrives in a destructor is lost, for Python ignores what those raise
                while not self._stop.wait(self.AGAIN):
                    self._fire()

    def _fire(self) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            self.fired = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._target), ctypes.py_object(TimeUp))
