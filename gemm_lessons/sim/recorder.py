"""The log of a launch: one 64-bit number for each access to shared or global memory.

Numbers are appended while the kernel runs, which is cheap, and are looked at in bulk with NumPy
(:mod:`races`, :mod:`counters`). From the lowest bit: 2 bits of kind, 3 of log2(size), 17 of site,
40 of address. Who made an access is not in it: a second, short list says from which position on
which segment of which thread was running.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from types import CodeType

import numpy as np

from gemm_lessons.sim.sites import SITE_BITS, Sites

READ, WRITE, ATOMIC, REWRITE = range(4)
#: The kind of a store of the value that is there already is REWRITE: two threads that store the
#: same value do no harm.

SIZE_SHIFT = 2
SITE_SHIFT = 5
ADDRESS_SHIFT = SITE_SHIFT + SITE_BITS
SIZE_CODES = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4}


def access_key(log_address: int, size: int) -> int:
    """The constant part of a log entry."""
    return log_address << ADDRESS_SHIFT | SIZE_CODES[size] << SIZE_SHIFT


class Recorder:
    """The log while a launch runs.

    Attributes:
        append: Adds an entry.
        code: The code object whose accesses are being logged.
        site: Its first site, shifted into place. ``f_lasti`` counts bytes and instructions have
            two, so the site of an access adds ``f_lasti << (SITE_SHIFT - 1)``.
    """

    __slots__ = ("_entries", "_mark_at", "_mark_segment", "append", "code", "site", "sites")

    def __init__(self) -> None:
        self.sites = Sites()
        self.code: CodeType | None = None
        self.site = 0
        self._clear()

    def _clear(self) -> None:
        self._entries = array("q")
        self.append: Callable[[int], None] = self._entries.append
        self._mark_at: list[int] = []
        self._mark_segment: list[int] = []

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, code: CodeType) -> None:
        """Accesses come from another code object from here on."""
        self.code = code
        self.site = self.sites.base(code) << SITE_SHIFT

    def mark(self, segment: int) -> None:
        """Accesses belong to another segment from here on."""
        self._mark_at.append(len(self._entries))
        self._mark_segment.append(segment)

    def at_next_entry(self, action: Callable[[], None]) -> None:
        """Call something once, right after the next entry; may be called from another thread."""
        entries = self._entries

        def append(entry: int) -> None:
            entries.append(entry)
            if self._entries is entries:
                self.append = entries.append
            action()

        self.append = append

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Empty the log.

        Returns:
            The entries, and the segment of each.
        """
        entries = np.frombuffer(self._entries, dtype=np.int64)
        site = entries >> SITE_SHIFT & ((1 << SITE_BITS) - 1)
        entries = entries + (self.sites.canonical[site] - site << SITE_SHIFT)
        bounds = np.array([*self._mark_at, len(entries)], dtype=np.int64)
        segments = np.repeat(np.array(self._mark_segment, dtype=np.int64), np.diff(bounds))
        latest = self._mark_segment[-1:]
        self._clear()
        if latest:
            self.mark(latest[0])
        return entries, segments
