"""Happens-before: what each thread knows that others have done.

A thread's run is cut into *segments* at everything that orders it with others. A :class:`Clock`
says which segments happened before: by block (every thread of block b up to barrier number e) and
by thread (thread t up to its segment s). Most threads of a block share one clock object, made at
the block's last barrier, which keeps thousands of threads cheap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import numpy as np


class Clock:
    """What happened before; never changed once made.

    Attributes:
        blocks: ``{block: epoch}``: all that block's threads did before its barrier ``epoch``.
        threads: ``{thread: index}``: all that the thread did up to its segment ``index``.
        number: Names the clock in a :class:`Segments` table; -1 until it is needed there.
    """

    __slots__ = ("blocks", "number", "threads")

    def __init__(self, blocks: dict[int, int], threads: dict[int, int]) -> None:
        self.blocks = blocks
        self.threads = threads
        self.number = -1

    def with_thread(self, thread: int, index: int) -> Clock:
        """The same, and a thread up to one of its segments."""
        return Clock(self.blocks, {**self.threads, thread: index})


def join(clocks: Iterable[Clock]) -> Clock:
    """All that any of the clocks knows."""
    unique = list({id(clock): clock for clock in clocks}.values())
    if len(unique) == 1:
        return unique[0]
    return Clock(_latest(c.blocks for c in unique), _latest(c.threads for c in unique))


def _latest(tables: Iterable[dict[int, int]]) -> dict[int, int]:
    unique = list({id(table): table for table in tables}.values())
    unique.sort(key=len)
    merged = dict(unique.pop())
    for table in unique:
        for key, value in table.items():
            if merged.get(key, -1) < value:
                merged[key] = value
    return merged


class Segments:
    """One row for each segment of a launch."""

    def __init__(self) -> None:
        self._thread: list[int] = []
        self._block: list[int] = []
        self._epoch: list[int] = []
        self._index: list[int] = []
        self._clock: list[int] = []
        self._fenced: list[bool] = []
        self._clocks: list[Clock] = []
        self._proxy_fences: dict[int, list[tuple[int, int]]] = {}  # of a thread: (segment index, epoch)
        self._shown: dict[int, Clock] = {}  # to an agent, by a fence of whoever started it

    def __len__(self) -> int:
        return len(self._thread)

    def add(self, thread: int, block: int, epoch: int, index: int, clock: Clock, fenced: bool) -> int:
        """Append a row.

        Args:
            thread: Number of the thread in the grid, or of an asynchronous agent.
            block: Linear index of the block; agents have negative numbers of their own.
            epoch: Barriers that the block has passed.
            index: Number of the segment in its thread.
            clock: What happened before the segment.
            fenced: Whether the thread has passed a memory fence.

        Returns:
            The number of the row.
        """
        if clock.number < 0:
            clock.number = len(self._clocks)
            self._clocks.append(clock)
        self._thread.append(thread)
        self._block.append(block)
        self._epoch.append(epoch)
        self._index.append(index)
        self._clock.append(clock.number)
        self._fenced.append(fenced)
        return len(self._thread) - 1

    def column(self, name: str) -> np.ndarray:
        """A column as an array: ``thread``, ``block``, ``epoch``, ``clock`` or ``fenced``."""
        values: Any = getattr(self, f"_{name}")
        return np.array(values, dtype=np.int64)

    def ordered(self, first: int, clock_number: int) -> bool:
        """Whether a segment happened before everything that has a given clock."""
        return self._before(first, self._clocks[clock_number])

    def _before(self, first: int, clock: Clock) -> bool:
        if self._epoch[first] < clock.blocks.get(self._block[first], 0):
            return True
        return self._index[first] <= clock.threads.get(self._thread[first], -1)

    def fence_proxy(self, thread: int, index: int, epoch: int) -> None:
        """A thread shows what it wrote, up to one of its segments, to asynchronous agents."""
        self._proxy_fences.setdefault(thread, []).append((index, epoch))

    def show(self, agent: int, clock: Clock) -> None:
        """An agent sees all that its starter knew at its last proxy fence."""
        self._shown[agent] = clock

    def visible(self, write: int, read: int) -> bool:
        """Whether a proxy fence lies between a thread's segment and an agent's, which it is ordered before.

        It may be one of the writer, or one of the agent's starter after it has learned of the write.
        """
        clock, thread = self._clocks[self._clock[read]], self._thread[write]
        fences = self._proxy_fences.get(thread, [])
        at = bisect_left(fences, (self._index[write], -1))
        if at < len(fences):
            index, epoch = fences[at]
            if epoch < clock.blocks.get(self._block[write], 0) or index <= clock.threads.get(thread, -1):
                return True
        shown = self._shown.get(self._thread[read])
        return shown is not None and self._before(write, shown)

    def row(self, segment: int) -> tuple[int, int]:
        """The thread and the block of a segment."""
        return self._thread[segment], self._block[segment]
