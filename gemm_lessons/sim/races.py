"""Data races, found in the log: FastTrack's rules, vectorised over all addresses at once.

For each address, accesses are taken in the order in which they happened. It is enough to ask
whether a plain write is ordered after the write before it and the reads since, and whether a read
is ordered after the write before it: if all these are, every other pair is too. Atomics conflict
with plain accesses, not with each other.

Most pairs are ordered for a simple reason (same thread; same block and a barrier in between) that
NumPy decides for all at once. What is left is asked of :meth:`clocks.Segments.ordered`, once for
each pair of segment and clock. Of a thread's write and an agent's read in shared memory that are
ordered, :meth:`clocks.Segments.visible` says whether a proxy fence lies between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gemm_lessons.sim.clocks import Segments
from gemm_lessons.sim.memory import SHARED_LOG, SLICE_BITS, Root
from gemm_lessons.sim.recorder import (
    ADDRESS_SHIFT,
    ATOMIC,
    READ,
    REWRITE,
    SITE_SHIFT,
    SIZE_SHIFT,
    WRITE,
)
from gemm_lessons.sim.sites import SITE_BITS

_POSITION_BITS = 23


@dataclass(frozen=True)
class Access:
    """One side of a race.

    Attributes:
        segment: Row in the table of segments.
        site: Number of the bytecode instruction.
        kind: ``READ``, ``WRITE``, ``ATOMIC`` or ``REWRITE``.
    """

    segment: int
    site: int
    kind: int


@dataclass(frozen=True)
class Race:
    """Two accesses that nothing orders.

    Attributes:
        address: Log address.
        first: The one that happened first in this run.
        second: The other.
        order: Position of the second in the log, to sort findings by.
        count: Pairs with the same two sites and kinds.
        unfenced: They are ordered, but the second is an agent's, and no proxy fence shows it the first.
    """

    address: int
    first: Access
    second: Access
    order: int
    count: int
    unfenced: bool = False


@dataclass
class _Columns:
    """Accesses as columns; ``order`` is the position in the log of the launch."""

    entry: np.ndarray
    segment: np.ndarray
    order: np.ndarray
    address: np.ndarray

    def pick(self, which: np.ndarray) -> _Columns:
        return _Columns(self.entry[which], self.segment[which], self.order[which], self.address[which])


class RaceDetector:
    """Looks through a launch's log, piece by piece."""

    def __init__(self, segments: Segments, roots: list[Root], clusters: bool = False) -> None:
        """Start a launch.

        Args:
            segments: Whose accesses they are; grows during the launch.
            roots: The allocations; grows during the launch.
            clusters: Whether blocks use each other's shared memory.
        """
        self._clusters = clusters
        self._segments = segments
        self._roots = roots
        self._seen = 0
        self._carry: _Columns | None = None
        #: Log addresses with a race.
        self.racy: set[int] = set()

    def feed(
        self, entries: np.ndarray, segments: np.ndarray, live_epochs: dict[int, int] | None
    ) -> list[Race]:
        """Look at the next piece of the log.

        Args:
            entries: As :meth:`recorder.Recorder.take` returns them.
            segments: The segment of each.
            live_epochs: Barriers passed by each unfinished block; None if nothing follows.

        Returns:
            The races found, one for each pair of sites and kinds.
        """
        order = np.arange(self._seen, self._seen + len(entries))
        self._seen += len(entries)
        columns = self._split(_Columns(entries, segments, order, entries >> ADDRESS_SHIFT))
        if self._carry is not None:
            columns = _concatenate(self._carry, columns)
        if not len(columns.entry):
            return []
        columns = columns.pick(_by_address(columns.address))
        races = self._races(columns)
        self._carry = None if live_epochs is None else self._keep(columns, live_epochs)
        return races

    def _split(self, columns: _Columns) -> _Columns:
        """Cut wide accesses where the same memory is used with several widths."""
        mixed = [root for root in self._roots if root.mixed]
        if not mixed:
            return columns
        sizes = np.int64(1) << (columns.entry >> SIZE_SHIFT & 7)
        times = np.ones(len(sizes), np.int64)
        for root in mixed:
            inside = (columns.address >= root.log_base) & (columns.address < root.log_base + root.size)
            times = np.where(inside, np.maximum(1, sizes // root.granule), times)
        which = np.repeat(np.arange(len(sizes)), times)
        starts = np.repeat(np.cumsum(times) - times, times)
        cut = columns.pick(which)
        cut.address = cut.address + (np.arange(len(which)) - starts) * (sizes // times)[which]
        return cut

    def _races(self, all_columns: _Columns) -> list[Race]:
        thread = self._segments.column("thread")
        columns = all_columns.pick(_contended(all_columns, thread))
        if not len(columns.entry):
            return []
        kind = columns.entry & 3
        first, second = _pairs(columns.address, kind)
        both_write = (kind[first] != READ) & (kind[first] != ATOMIC) & (kind[second] == REWRITE)
        a, b = columns.segment[first], columns.segment[second]
        block, epoch = self._segments.column("block"), self._segments.column("epoch")
        fenced = self._segments.column("fenced")
        # why: a plain store of a flag after a fence, read by an atomic, works on every GPU.
        flag = (kind[second] == ATOMIC) & (kind[first] != READ) & (fenced[a] != 0)
        flag |= (kind[first] == ATOMIC) & (kind[second] != READ) & (fenced[b] != 0)
        open_ = (thread[a] != thread[b]) & ~both_write & ~flag
        open_ &= (block[a] != block[b]) | (epoch[a] >= epoch[b]) | (block[a] < 0)
        first, second, a, b = first[open_], second[open_], a[open_], b[open_]
        if not len(a):
            return []
        racy = ~_ask(self._segments.ordered, a, self._segments.column("clock")[b])
        hidden = ~racy & (block[a] >= 0) & (block[b] < 0) & (kind[first] != READ) & (kind[second] == READ)
        hidden &= columns.address[second] >= SHARED_LOG
        hidden[hidden] = ~_ask(self._segments.visible, a[hidden], b[hidden])
        races = self._summary(columns, first[racy], second[racy])
        unfenced = self._summary(columns, first[hidden], second[hidden])
        return races + [replace(race, unfenced=True) for race in unfenced]

    def _summary(self, columns: _Columns, first: np.ndarray, second: np.ndarray) -> list[Race]:
        if not len(first):
            return []
        self.racy.update(np.unique(columns.address[first]).tolist())
        mask = (1 << ADDRESS_SHIFT) - 1 & ~(((1 << SITE_SHIFT) - 1) ^ 3)  # site and kind
        a, b = columns.entry[first] & mask, columns.entry[second] & mask
        by_order = np.argsort(columns.order[second], kind="stable")
        pairs = np.stack([a[by_order], b[by_order]])
        _, index, counts = np.unique(pairs, axis=1, return_index=True, return_counts=True)
        return [
            Race(
                int(columns.address[first[at]]),
                _access(columns, first[at]),
                _access(columns, second[at]),
                int(columns.order[second[at]]),
                int(count),
            )
            for at, count in sorted(zip(by_order[index], counts, strict=True), key=lambda x: x[0])
        ]

    def _keep(self, columns: _Columns, live_epochs: dict[int, int]) -> _Columns:
        """What later accesses may still conflict with."""
        kind = columns.entry & 3
        start = _group_starts(columns.address)
        writes = np.where((kind == WRITE) | (kind == REWRITE), np.arange(len(kind)), -1)
        last_write = np.maximum.reduceat(writes, np.flatnonzero(start))[np.cumsum(start) - 1]
        alive = np.arange(len(kind)) >= last_write
        shared = columns.address >= SHARED_LOG
        owner = (columns.address - SHARED_LOG) >> SLICE_BITS
        live = np.array(sorted(live_epochs), dtype=np.int64)
        alive &= ~shared | np.isin(owner, live)
        if not self._clusters and not (self._segments.column("block") < 0).any():
            # why: without agents or clusters, a barrier settles all that a block did before it, but for
            # writes, which an agent that starts later sees behind a proxy fence only.
            current = dict(live_epochs)
            block = self._segments.column("block")[columns.segment]
            epoch = self._segments.column("epoch")[columns.segment]
            now = np.array([current.get(b, 1 << 40) for b in range(int(block.max(initial=0)) + 1)])
            alive &= ~shared | (epoch >= now[block]) | (kind == WRITE) | (kind == REWRITE)
        kept = columns.pick(alive)
        same = np.zeros(len(kept.entry), dtype=bool)
        same[1:] = (
            (kept.entry[1:] == kept.entry[:-1])
            & (kept.segment[1:] == kept.segment[:-1])
            & (kept.address[1:] == kept.address[:-1])
        )
        return kept.pick(~same)


def _ask(question: Callable[[int, int], bool], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The answer for each pair of numbers; equal pairs are asked once."""
    width = int(second.max(initial=0)) + 1
    pairs, inverse = np.unique(first * width + second, return_inverse=True)
    answers = [question(*divmod(pair, width)) for pair in pairs.tolist()]
    return np.array(answers, dtype=bool)[inverse]


def _concatenate(one: _Columns, two: _Columns) -> _Columns:
    return _Columns(
        np.concatenate([one.entry, two.entry]),
        np.concatenate([one.segment, two.segment]),
        np.concatenate([one.order, two.order]),
        np.concatenate([one.address, two.address]),
    )


def _by_address(address: np.ndarray) -> np.ndarray:
    """Sorts by address and, within an address, by position."""
    if len(address) < 1 << _POSITION_BITS:
        # why: one unstable sort of packed keys is several times faster than a stable argsort.
        key = address << _POSITION_BITS | np.arange(len(address))
        key.sort()
        return key & ((1 << _POSITION_BITS) - 1)
    return np.argsort(address, kind="stable")


def _group_starts(sorted_address: np.ndarray) -> np.ndarray:
    start = np.ones(len(sorted_address), dtype=bool)
    start[1:] = sorted_address[1:] != sorted_address[:-1]
    return start


def _contended(columns: _Columns, thread_of: np.ndarray) -> np.ndarray:
    """Which accesses are to addresses that several threads use, one at least not reading."""
    start = _group_starts(columns.address)
    at = np.flatnonzero(start)
    kind = columns.entry & 3
    thread = thread_of[columns.segment]
    keep = np.minimum.reduceat(thread, at) != np.maximum.reduceat(thread, at)
    keep &= np.maximum.reduceat(kind, at) != READ
    keep &= ~np.logical_and.reduceat(kind == ATOMIC, at)
    return keep[np.cumsum(start) - 1]


def _pairs(address: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (earlier, later) of positions that must be ordered for all to be ordered."""
    here = np.arange(len(address))
    group = np.cumsum(_group_starts(address))
    write = (kind == WRITE) | (kind == REWRITE)
    pairs = [_previous(here, group, write), _next(here, group, write, ~write)]
    atomic, read = kind == ATOMIC, kind == READ
    if atomic.any():
        pairs += [
            _previous(here, group, atomic, read),
            _previous(here, group, read, atomic),
            _next(here, group, atomic, read),
            _next(here, group, read, atomic),
        ]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def _previous(
    here: np.ndarray, group: np.ndarray, what: np.ndarray, whose: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each access (in ``whose``) the latest one in ``what`` before it, at the same address."""
    latest = np.maximum.accumulate(np.where(what, here, -1))
    before = np.concatenate([[-1], latest[:-1]])
    found = before >= 0
    found &= group[before] == group
    if whose is not None:
        found &= whose
    return before[found], here[found]


def _next(
    here: np.ndarray, group: np.ndarray, what: np.ndarray, whose: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each access in ``whose`` the next one in ``what`` after it, at the same address."""
    count = len(here)
    nearest = np.minimum.accumulate(np.where(what, here, count)[::-1])[::-1]
    after = np.concatenate([nearest[1:], [count]])
    found = whose & (after < count)
    found &= group[np.minimum(after, count - 1)] == group
    return here[found], after[found]


def _access(columns: _Columns, at: int) -> Access:
    entry = int(columns.entry[at])
    site = entry >> SITE_SHIFT & ((1 << SITE_BITS) - 1)
    return Access(int(columns.segment[at]), site, entry & 3)
