"""Traffic per expression, counted in the log: requests, sectors, bank conflicts.

One *request* is a warp's k-th execution of an expression. Where lanes skip iterations, the k-th
executions of different lanes need not belong together, and the counts are approximate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemm_lessons.sim.clocks import Segments
from gemm_lessons.sim.memory import SHARED_LOG
from gemm_lessons.sim.recorder import ADDRESS_SHIFT, ATOMIC, READ, SITE_SHIFT, SIZE_SHIFT
from gemm_lessons.sim.sites import SITE_BITS

SECTOR_BYTES = 32
BANKS = 32
BANK_BYTES = 4
#: A warp's request is served 128 bytes at a time: 16-byte accesses go by quarters of the warp.
PASS_BYTES = 128


#: Accesses that may wait for the rest of their barrier interval.
PENDING_LIMIT = 1 << 22
_NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass
class Traffic:
    """Sums for one site and kind; see :class:`report.LineCount`."""

    address: int = 0
    accesses: int = 0
    requests: int = 0
    sectors: int = 0
    wavefronts: int = 0
    worst: int = 0


class Counters:
    """Sums up a launch's log, piece by piece.

    Attributes:
        traffic: By site, whether shared, and kind (``READ``, ``ATOMIC``, else a store).
    """

    def __init__(self, segments: Segments, threads_per_block: int) -> None:
        self._segments = segments
        self._threads = threads_per_block
        self._warps = -(-threads_per_block // 32)
        self._pending = _NOTHING
        self.traffic: dict[tuple[int, bool, str], Traffic] = {}

    def feed(self, entries: np.ndarray, segments: np.ndarray, live_epochs: dict[int, int] | None) -> None:
        """Count the next piece of the log.

        Args:
            entries: As :meth:`recorder.Recorder.take` returns them.
            segments: The segment of each.
            live_epochs: Barriers passed by each unfinished block; None if nothing follows. What
                happened since then is counted next time, so that no request is cut in two.
        """
        entries = np.concatenate([self._pending[0], entries])
        segments = np.concatenate([self._pending[1], segments])
        ours = self._segments.column("block")[segments] >= 0  # agents have no lanes
        entries, segments = entries[ours], segments[ours]
        if live_epochs is not None and len(entries) < PENDING_LIMIT:
            block = self._segments.column("block")[segments]
            epoch = self._segments.column("epoch")[segments]
            now = np.full(int(block.max(initial=0)) + 1, 1 << 40)
            for number, value in live_epochs.items():
                if number < len(now):
                    now[number] = value
            later = epoch >= now[block]
            self._pending = entries[later], segments[later]
            entries, segments = entries[~later], segments[~later]
        else:
            self._pending = _NOTHING
        if not len(entries):
            return
        thread = self._segments.column("thread")[segments]
        epoch = self._segments.column("epoch")[segments]
        kind = entries & 3
        action = np.where(kind == READ, 0, np.where(kind == ATOMIC, 2, 1))
        address = entries >> ADDRESS_SHIFT
        shared = (address >= SHARED_LOG).astype(np.int64)
        site = entries >> SITE_SHIFT & ((1 << SITE_BITS) - 1)
        code = site << 3 | shared << 2 | action
        block, inside = np.divmod(thread, self._threads)
        warp, lane = block * self._warps + inside // 32, inside % 32
        rank = _rank(_dense(code, thread, epoch))
        request = _dense(code, warp, epoch, rank)
        size = np.int64(1) << (entries >> SIZE_SHIFT & 7)
        self._sum(code, request, address, shared.astype(bool), size, lane)

    def _sum(
        self,
        code: np.ndarray,
        request: np.ndarray,
        address: np.ndarray,
        shared: np.ndarray,
        size: np.ndarray,
        lane: np.ndarray,
    ) -> None:
        codes, which = np.unique(code, return_inverse=True)
        request_code = np.zeros(int(request.max()) + 1, np.int64)
        request_code[request] = which
        accesses = np.bincount(which, minlength=len(codes))
        requests = np.bincount(request_code, minlength=len(codes))
        sectors = self._sectors(request[~shared], address[~shared], size[~shared], request_code)
        waves = _wavefronts(request[shared], address[shared], size[shared], lane[shared], len(request_code))
        for number, key in enumerate(codes.tolist()):
            action = ("load", "store", "atomic")[key & 3]
            sums = self.traffic.setdefault((key >> 3, bool(key >> 2 & 1), action), Traffic())
            mine = waves[request_code == number]
            sums.address = int(address[which == number][0])
            sums.accesses += int(accesses[number])
            sums.requests += int(requests[number])
            sums.sectors += int(sectors[number]) if number < len(sectors) else 0
            sums.wavefronts += int(mine.sum())
            sums.worst = max(sums.worst, int(mine.max(initial=0)))

    @staticmethod
    def _sectors(
        request: np.ndarray, address: np.ndarray, size: np.ndarray, request_code: np.ndarray
    ) -> np.ndarray:
        first, last = address // SECTOR_BYTES, (address + size - 1) // SECTOR_BYTES
        touched = np.stack([np.concatenate([request, request]), np.concatenate([first, last])])
        one_each = _unique_columns(touched)
        return np.bincount(request_code[one_each[0]], minlength=int(request_code.max()) + 1)


def _dense(*columns: np.ndarray) -> np.ndarray:
    """Numbers the distinct rows of some columns."""
    key = columns[0]
    for column in columns[1:]:
        width = int(column.max()) + 1
        if int(key.max()) >= (1 << 62) // max(1, width):
            key = np.unique(key, return_inverse=True)[1]
        key = key * width + column
    return np.unique(key, return_inverse=True)[1]


def _rank(key: np.ndarray) -> np.ndarray:
    """How often the same key came before, for each position."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    start = np.ones(len(key), dtype=bool)
    start[1:] = ordered[1:] != ordered[:-1]
    at = np.arange(len(key))
    rank = np.empty(len(key), np.int64)
    rank[order] = at - np.maximum.accumulate(np.where(start, at, 0))
    return rank


def _unique_columns(rows: np.ndarray) -> np.ndarray:
    """Distinct pairs of two rows of numbers."""
    width = int(rows[1].max(initial=0)) + 1
    low = int(rows[1].min(initial=width))
    span = max(1, width - low)
    key = np.unique(rows[0] * span + (rows[1] - low))
    return np.stack([key // span, key % span + low])


def _wavefronts(
    request: np.ndarray, address: np.ndarray, size: np.ndarray, lane: np.ndarray, requests: int
) -> np.ndarray:
    """Passes over the banks, for each request: the most different words in one bank."""
    if not len(request):
        return np.zeros(requests, np.int64)
    words = np.maximum(1, size // BANK_BYTES)
    passes = request * 4 + lane * np.maximum(BANK_BYTES, size) // PASS_BYTES
    which = np.repeat(np.arange(len(request)), words)
    starts = np.repeat(np.cumsum(words) - words, words)
    word = (address // BANK_BYTES)[which] + np.arange(len(which)) - starts
    distinct = _unique_columns(np.stack([passes[which], word]))
    banks = _unique_columns_count(distinct[0] * BANKS + distinct[1] % BANKS)
    per_pass = np.zeros(4 * requests, np.int64)
    np.maximum.at(per_pass, banks[0] // BANKS, banks[1])
    return per_pass.reshape(requests, 4).sum(axis=1)


def _unique_columns_count(key: np.ndarray) -> np.ndarray:
    return np.stack(np.unique(key, return_counts=True))
