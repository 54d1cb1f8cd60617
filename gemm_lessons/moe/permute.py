"""Sort the tokens by expert, and bring their results back: count, scan, place, gather, scatter.

    experts [T, k]     0 2 | 1 0 | 2 0        slots in the order of memory, k = 2
    count              3 1 2                  slots of each expert, chunk by chunk of neighbouring slots
    scan               0 3 4 | 6              offsets: where each expert's rows begin, and how many there are
    place              0 4 | 3 1 | 5 2        destination [T, k]: the row of each slot
                       0 3 5 | 2 | 1 4        source [rows]: the slot of each row, token * k + slot
    gather             rows[destination[t, j]] = x[t]
    scatter            y[t] = sum over j of weights[t, j] * rows[destination[t, j]]

The order is stable: within an expert, rows come in the order of their tokens, so the same routing gives
the same rows in every run.  No kernel adds floats atomically, so it gives the same sums, too.

An expert that is over its capacity keeps its first slots; the others get no row (destination -1).  With
`padded`, every expert has exactly `capacity` rows, those that it does not fill are zero, and the counts
say which they are: what the masked step and fixed shapes want.

Nothing waits for the host: the counts stay on the device, buffers are as long as they can get, and all of
it can be recorded in a CUDA graph.  `PreparedPermutation.read` fetches the counts when they are wanted, and
with them how many slots were dropped and how many tokens had logits that were not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import DEFAULT_SHARED_BYTES, Launch, Part, start_of, to_device
from gemm_lessons.moe.routing import NO_EXPERT, NOT_FINITE, Array, Routing, RoutingError, describe_bad
from gemm_lessons.moe.routing import ranks as stable_ranks
from gemm_lessons.problem import DTYPES, LARGEST_EXTENT, ProblemError
from gemm_lessons.ptx.bits import as_float32, as_word
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.matrix import pack, unpack
from gemm_lessons.ptx.shared import ld_global_v4, st_global_v4

device.choose()

from numba import cuda, float32, int32, uint32  # noqa: E402  why late: the device is chosen before

ALL_LANES = 0xFFFFFFFF
VECTOR_BYTES = 16
NO_CAPACITY = LARGEST_EXTENT


@dataclass(frozen=True)
class Permutation:
    """Where every slot's row is, on the host.

    Attributes:
        counts: int32 [E], rows of each expert that hold a token.
        offsets: int32 [E + 1], where each expert's rows begin.
        source: int32 [offsets[E]], the slot (token * k + slot) of each row; -1 for padding.
        destination: int32 [T, k], the row of each slot; -1 for a slot that has none.
        num_dropped: slots that an expert had no room for.
    """

    counts: Array
    offsets: Array
    source: Array
    destination: Array
    num_dropped: int


def permutation(routing: Routing, capacity: int | None = None, *, padded: bool = False) -> Permutation:
    """The oracle of count, scan and place.

    Args:
        routing: experts [T, k], negative where there is none.
        capacity: the most rows of an expert; None for no limit.
        padded: give every expert exactly `capacity` rows.

    Raises:
        RoutingError: a capacity below zero, or padding without one.
    """
    capacity = _check_capacity(capacity, padded, routing.num_experts)
    wanted = routing.counts
    counts = np.minimum(wanted, capacity).astype(np.int32)
    sizes = np.full_like(counts, capacity) if padded else counts
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    rank = stable_ranks(routing.experts)
    has_row = (routing.experts >= 0) & (rank < capacity)
    destination = np.where(has_row, offsets[np.maximum(routing.experts, 0)] + rank, -1).astype(np.int32)
    source = np.full(offsets[-1], -1, np.int32)
    source[destination[has_row]] = np.flatnonzero(has_row)
    return Permutation(counts, offsets, source, destination, int((wanted - counts).sum()))


def gather(x: Array, order: Permutation) -> Array:
    """The oracle of gather: x [T, D] -> rows [offsets[E], D]; padding is zero."""
    rows = x[np.maximum(order.source, 0) // order.destination.shape[1]]
    rows[order.source < 0] = 0
    return rows


def scatter(rows: Array, order: Permutation, weights: Array, residual: Array | None = None) -> Array:
    """The oracle of scatter, in float64: y [T, D] = residual + sum over slots of weight * row.

    A slot without a row adds nothing, so a token whose slots were all dropped passes by: it is its
    residual, or zero.
    """
    shape = (order.destination.shape[0], rows.shape[1])
    y = np.zeros(shape) if residual is None else residual.astype(np.float64)
    for slot in range(order.destination.shape[1]):
        row = order.destination[:, slot]
        y[row >= 0] += weights[row >= 0, slot, None] * rows[row[row >= 0]].astype(np.float64)
    return y


@dataclass(frozen=True)
class Config:
    """Compile-time constants.

    Attributes:
        num_experts: E.
        num_slots: k.
        threads: of a block that counts or places, in warps.
        scan_threads: of the one block that scans.
        most_chunks: chunks are made larger rather than more than so many, since one block scans them.
    """

    num_experts: int
    num_slots: int
    threads: int = 256
    scan_threads: int = 1024
    most_chunks: int = 128

    @property
    def num_warps(self) -> int:
        """Warps of a block that counts or places."""
        return self.threads // 32

    @property
    def shared_bytes(self) -> int:
        """Static shared memory of a block that places: a count for every warp and expert, and one before."""
        return 4 * self.num_experts * (self.num_warps + 1)

    def validate(self) -> None:
        """Refuse more experts than a block can count.

        Raises:
            RoutingError: with the number of bytes.
        """
        require_room(self, self.shared_bytes, "use fewer threads or fewer experts")


def require_room(config: Config, shared_bytes: int, advice: str) -> None:
    """Refuse more experts than a block has static shared memory to count.

    Raises:
        RoutingError: with the number of bytes, and what to do.
    """
    if shared_bytes > DEFAULT_SHARED_BYTES:
        raise RoutingError(
            f"{config.num_experts} experts and {config.threads} threads need {shared_bytes} bytes of shared"
            f" memory and a block has {DEFAULT_SHARED_BYTES}: {advice}"
        )


@dataclass(frozen=True)
class RowConfig:
    """Compile-time constants of the kernels that move whole rows.

    Attributes:
        num_slots: k.
        dtype: of the rows.
        threads: of a block, which moves one row.
        vector: 16 bytes per access; needs rows that begin at multiples of 16 bytes.
        with_residual: scatter adds to what there is.
    """

    num_slots: int
    dtype: str
    threads: int = 256
    vector: bool = True
    with_residual: bool = False


def make_expert_of(num_experts: int) -> Any:
    """Make the device function that reads a slot's expert; a number out of range means no expert."""

    @inlined
    def expert_of(experts, i):
        expert = experts[i]
        if expert >= num_experts:  # why: what a kernel wrote is never trusted with memory
            expert = int32(NO_EXPERT)
        return expert

    return expert_of


@cache
def make_count_slots(config: Config) -> Any:
    """Make the device function that counts the slots of a block in shared memory, int32 [E + 1].

    Shared atomics are quick, and integers add up to the same sum in any order.  Bin E counts tokens that
    are not finite, by their first slots.
    """
    E, k, threads = config.num_experts, config.num_slots, config.threads
    bins = E + 1
    expert_of = make_expert_of(E)

    @inlined
    def count_slots(experts, start, stop, s_bins):
        """All threads of the block call it; they may read s_bins afterwards."""
        tid = cuda.threadIdx.x
        for expert in range(tid, bins, threads):
            s_bins[expert] = 0
        cuda.syncthreads()  # why: nobody may count before all bins are zero
        for i in range(start + tid, stop, threads):
            expert = expert_of(experts, i)
            if expert >= 0:
                cuda.atomic.add(s_bins, expert, 1)
            elif expert == NOT_FINITE and i % k == 0:
                cuda.atomic.add(s_bins, E, 1)
        cuda.syncthreads()  # why: all must have counted before anybody reads the bins

    return count_slots


@cache
def make_count(config: Config) -> Any:
    """Histogram: chunk_counts [E + 1, num_chunks] of experts [T * k]; also forgets the old source [rows]."""
    threads, bins = config.threads, config.num_experts + 1
    count_slots = make_count_slots(config)

    @cuda.jit
    def count_kernel(experts, chunk, chunk_counts, source):
        s_bins = cuda.shared.array(bins, int32)
        start = cuda.blockIdx.x * chunk
        count_slots(experts, start, min(start + chunk, experts.shape[0]), s_bins)
        for expert in range(cuda.threadIdx.x, bins, threads):
            chunk_counts[expert, cuda.blockIdx.x] = s_bins[expert]
        for row in range(cuda.grid(1), source.shape[0], cuda.gridsize(1)):
            source[row] = -1

    return count_kernel


@inlined
def scan_warp(value):
    """Inclusive prefix sum over the lanes of a warp; all lanes call it."""
    lane = cuda.threadIdx.x & 31
    for distance in (1, 2, 4, 8, 16):
        below = cuda.shfl_up_sync(ALL_LANES, value, distance)
        if lane >= distance:
            value += below
    return value


@inlined
def scan_experts(totals, num_experts, capacity, padded, offsets):
    """Offsets [E + 1] of the experts' totals, all clipped to the capacity; one warp calls it.

    Returns:
        How many slots are beyond the capacity, in lane 31.
    """
    lane = cuda.threadIdx.x & 31
    before, dropped = int32(0), int32(0)
    for first in range(0, num_experts, 32):
        expert = first + lane
        size = int32(0)
        if expert < num_experts:
            size = min(totals[expert], capacity)
            dropped += totals[expert] - size
            if padded:
                size = capacity
        upto = scan_warp(size)
        if expert < num_experts:
            offsets[expert] = before + upto - size
        before += cuda.shfl_sync(ALL_LANES, upto, 31)
    if lane == 0:
        offsets[num_experts] = before
    return scan_warp(dropped)


@cache
def make_scan(config: Config) -> Any:
    """Prefix sums: chunk_counts [E + 1, num_chunks] becomes the slots of the expert in earlier chunks.

    One block: a warp sums an expert's chunks, 32 at a time, and then one warp sums the experts.  Writes
    offsets [E + 1] and tally [E + 2]: the counts, what was dropped, and the tokens that are not finite.
    """
    E, bins, num_warps = config.num_experts, config.num_experts + 1, config.scan_threads // 32

    @cuda.jit
    def scan_kernel(capacity, padded, chunk_counts, offsets, tally):
        s_totals = cuda.shared.array(bins, int32)
        lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
        num_chunks = chunk_counts.shape[1]
        for expert in range(warp, bins, num_warps):
            before = int32(0)
            for first in range(0, num_chunks, 32):
                chunk = first + lane
                count = int32(0)
                if chunk < num_chunks:
                    count = chunk_counts[expert, chunk]
                upto = scan_warp(count)
                if chunk < num_chunks:
                    chunk_counts[expert, chunk] = before + upto - count
                before += cuda.shfl_sync(ALL_LANES, upto, 31)
            if lane == 0:
                s_totals[expert] = before
        cuda.syncthreads()  # why: one warp reads what all of them have summed
        if warp == 0:
            dropped = scan_experts(s_totals, E, capacity, padded, offsets)
            for expert in range(lane, E, 32):
                tally[expert] = min(s_totals[expert], capacity)
            if lane == 31:
                tally[E], tally[E + 1] = dropped, s_totals[E]

    return scan_kernel


@cache
def make_place_slots(config: Config) -> Any:
    """Make the device function that gives each slot of a block its row, in the order of the slots.

    A slot's rank is the number of slots before it with the same expert: before this block (s_before [E]
    says how many), in earlier rounds of it, in earlier warps, and in lower lanes.  `match_any` finds the
    lanes with the same expert; nothing depends on who is first, as it would with a ticket per expert.
    """
    E, threads, num_warps = config.num_experts, config.threads, config.num_warps
    expert_of = make_expert_of(E)

    @inlined
    def place_slots(experts, start, stop, offsets, capacity, s_before, s_counts, destination, source):
        """All threads of the block call it; s_counts is shared memory, int32 [num_warps, E]."""
        tid = cuda.threadIdx.x
        lane, warp = tid & 31, tid >> 5
        for expert in range(tid, E, threads):
            for other in range(num_warps):
                s_counts[other, expert] = 0
        cuda.syncthreads()  # why: no warp may enter its counts before they are all cleared
        for first in range(start, stop, threads):
            i = first + tid
            expert = int32(NO_EXPERT)
            if i < stop:
                expert = expert_of(experts, i)
            same = cuda.match_any_sync(ALL_LANES, expert)
            rank = cuda.popc(same & ((1 << lane) - 1))
            if expert >= 0 and rank == 0:
                s_counts[warp, expert] = cuda.popc(same)
            cuda.syncthreads()  # why: the counts of all warps are needed
            if expert >= 0:
                rank += s_before[expert]
                for other in range(warp):
                    rank += s_counts[other, expert]
                row = int32(-1)
                if rank < capacity and offsets[expert] + rank < source.shape[0]:
                    row = offsets[expert] + rank
                    source[row] = i
                destination[i] = row
            elif i < stop:
                destination[i] = -1
            cuda.syncthreads()  # why: a quick warp would clear what a slow one still adds up
            for other_expert in range(tid, E, threads):
                for other in range(num_warps):
                    s_before[other_expert] += s_counts[other, other_expert]
                    s_counts[other, other_expert] = 0
            cuda.syncthreads()  # why: the next round enters its counts into cleared ones

    return place_slots


@cache
def make_place(config: Config) -> Any:
    """Stable places: destination [T * k] and source [rows] from experts [T * k] and what scan left."""
    E, threads, num_warps = config.num_experts, config.threads, config.num_warps
    place_slots = make_place_slots(config)

    @cuda.jit
    def place_kernel(experts, chunk, chunk_starts, offsets, capacity, destination, source):
        s_before = cuda.shared.array(E, int32)
        s_counts = cuda.shared.array((num_warps, E), int32)
        for expert in range(cuda.threadIdx.x, E, threads):
            s_before[expert] = chunk_starts[expert, cuda.blockIdx.x]
        start = cuda.blockIdx.x * chunk
        stop = min(start + chunk, experts.shape[0])
        place_slots(experts, start, stop, offsets, capacity, s_before, s_counts, destination, source)

    return place_kernel


@cache
def make_units(dtype: str, vector: bool) -> tuple[Any, Any]:
    """Make the device functions that move a unit of a row: 16 bytes as four words, or one element.

    Args:
        dtype: of the elements, one of `DTYPES`.
        vector: 16 bytes at a time.

    Returns:
        `load(array, row, unit, inside)`, a tuple of words or of one element, zeros unless inside, and
        `store(array, row, unit, words)`.  Arrays are those of `as_units`.
    """
    zero = _bits(DTYPES[dtype]).type(0)
    if vector:

        @inlined
        def load(array, row, unit, inside):
            return ld_global_v4(address_of(array, (row, unit * 4)), inside)

        @inlined
        def store(array, row, unit, words):
            st_global_v4(address_of(array, (row, unit * 4)), words[0], words[1], words[2], words[3])
    else:

        @inlined
        def load(array, row, unit, inside):
            if inside:
                return (array[row, unit],)
            return (zero,)

        @inlined
        def store(array, row, unit, words):
            array[row, unit] = words[0]

    return load, store


@cache
def make_gather(config: RowConfig) -> Any:
    """Copy each token to the rows of its slots: x [T, D] and rows [max_rows, D] in units.

    A block reads a token once, whatever k is, and writes it as often as it has slots.
    """
    load, store = make_units(config.dtype, config.vector)
    threads, num_slots = config.threads, config.num_slots

    @cuda.jit
    def gather_kernel(x, destination, num_units, rows):
        token = cuda.blockIdx.x
        for unit in range(cuda.threadIdx.x, num_units, threads):
            words = load(x, token, unit, True)
            for slot in range(num_slots):
                row = destination[token, slot]
                if row >= 0:
                    store(rows, row, unit, words)

    return gather_kernel


@cache
def make_gather_by_row(config: RowConfig) -> Any:
    """Fetch each row's token: what `make_gather` does seen from the other end, and zeros into the padding.

    A block writes one row.  A token is read once for each of its slots, mostly from L2.
    """
    load, store = make_units(config.dtype, config.vector)
    threads, num_slots = config.threads, config.num_slots

    @cuda.jit
    def gather_by_row_kernel(x, source, offsets, num_units, rows):
        row = cuda.blockIdx.x
        if row >= offsets[offsets.shape[0] - 1]:
            return
        slot = source[row]
        token = int32(max(slot, 0) // num_slots)
        for unit in range(cuda.threadIdx.x, num_units, threads):
            store(rows, row, unit, load(x, token, unit, slot >= 0))

    return gather_by_row_kernel


@cache
def make_sums(dtype: str, vector: bool) -> tuple[int, Any, Any]:
    """Make the device functions that add units up in float32.

    Returns:
        How many values a unit holds, `add(acc, words, weight)` for a local float32 array of so many, and
        `words_of(acc)`, rounded to the dtype.
    """
    if dtype == "float32":

        @inlined
        def add_word(acc, first, word, weight):
            acc[first] += weight * as_float32(word)

        @inlined
        def word_of(acc, first):
            return as_word(acc[first])
    else:
        unpack_pair, pack_pair = unpack[dtype], pack[dtype]

        @inlined
        def add_word(acc, first, word, weight):
            low, high = unpack_pair(word)
            acc[first] += weight * low
            acc[first + 1] += weight * high

        @inlined
        def word_of(acc, first):
            return pack_pair(acc[first], acc[first + 1])

    per_word = 4 // DTYPES[dtype].itemsize
    if vector:

        @inlined
        def add(acc, words, weight):
            add_word(acc, 0, words[0], weight)
            add_word(acc, per_word, words[1], weight)
            add_word(acc, 2 * per_word, words[2], weight)
            add_word(acc, 3 * per_word, words[3], weight)

        @inlined
        def words_of(acc):
            return (
                word_of(acc, 0),
                word_of(acc, per_word),
                word_of(acc, 2 * per_word),
                word_of(acc, 3 * per_word),
            )

        return 4 * per_word, add, words_of

    @inlined
    def add_element(acc, words, weight):
        add_word(acc, 0, uint32(words[0]), weight)

    @inlined
    def element_of(acc):
        return (word_of(acc, 0),)  # storing it keeps the low half, if an element is half a word

    return per_word, add_element, element_of


@cache
def make_scatter(config: RowConfig) -> Any:
    """Weighted sum of each token's rows, in the order of its slots: y [T, D] in units.

    All loads of a unit are under way before the first is used, so they are predicated, not branched
    around.  The sum is float32 and is rounded once, at the end.
    """
    load, store = make_units(config.dtype, config.vector)
    width, add, words_of = make_sums(config.dtype, config.vector)
    threads, num_slots, with_residual = config.threads, config.num_slots, config.with_residual

    @cuda.jit
    def scatter_kernel(rows, destination, weights, residual, num_units, y):
        acc = cuda.local.array(width, float32)
        token = cuda.blockIdx.x
        for unit in range(cuda.threadIdx.x, num_units, threads):
            for i in range(width):
                acc[i] = float32(0)
            if with_residual:
                add(acc, load(residual, token, unit, True), float32(1))
            for slot in range(num_slots):
                row = destination[token, slot]
                weight = float32(0)
                if row >= 0:
                    weight = weights[token, slot]
                add(acc, load(rows, max(row, int32(0)), unit, row >= 0), weight)
            store(y, token, unit, words_of(acc))

    return scatter_kernel


@dataclass
class PreparedPermutation:
    """Count, scan and place, ready to be launched; the arrays are on the device.

    Attributes:
        num_tokens: T.
        config: compile-time constants; E and k are among them.
        capacity: the most rows of an expert.
        padded: whether every expert has `capacity` rows.
        tally: int32 [E + 2]: counts, dropped slots, tokens that are not finite.
        counts: int32 [E], the view of tally: rows of each expert that hold a token.
        offsets: int32 [E + 1].
        source: int32 [max_rows], -1 from offsets[E] on and in padding.
        destination: int32 [T, k], -1 for a slot without a row.
        parts: "count", "scan", "place", in order; none if there are no slots.
    """

    num_tokens: int
    config: Config
    capacity: int
    padded: bool
    tally: Any
    offsets: Any
    source: Any
    destination: Any
    parts: Mapping[str, Part]
    experts: Any

    @property
    def counts(self) -> Any:
        """int32 [E] on the device."""
        return self.tally[: self.config.num_experts]

    @property
    def max_rows(self) -> int:
        """Rows that there are at most, whatever the routing: how long buffers must be."""
        return int(self.source.shape[0])

    def __call__(self, stream: Any = None) -> None:
        """Enqueue all parts, in order; allocates nothing."""
        for part in self.parts.values():
            part(stream)

    def read(self) -> Permutation:
        """Wait for the device and fetch everything.

        Raises:
            RoutingError: tokens had logits that are not finite.
        """
        self.raise_if_bad()
        tally, offsets = self.tally.copy_to_host(), self.offsets.copy_to_host()
        E = self.config.num_experts
        source = self.source.copy_to_host()[: offsets[E]]
        return Permutation(tally[:E], offsets, source, self.destination.copy_to_host(), int(tally[E]))

    def raise_if_bad(self) -> None:
        """Wait for the device, and refuse a routing with tokens whose logits were not finite.

        Raises:
            RoutingError: how many, and the first.
        """
        cuda.synchronize()
        num_bad = int(self.tally.copy_to_host()[self.config.num_experts + 1])
        if num_bad:
            first = int(np.argwhere(self.experts.copy_to_host() == NOT_FINITE)[0, 0])
            raise RoutingError(describe_bad(num_bad, self.num_tokens, first))


def allocate_permutation(
    experts: Any, num_experts: int, capacity: int | None, config: Config, *, padded: bool = False
) -> PreparedPermutation:
    """The arrays of a permutation, without launches: for kernels that fill them in their own way.

    Arguments and errors are those of `prepare_permutation`.
    """
    experts = to_device(experts)
    if experts.ndim != 2 or experts.dtype != np.int32 or not experts.shape[1]:
        raise RoutingError(f"experts must be int32 [T, k], got {experts.dtype} {tuple(experts.shape)}")
    num_tokens, num_slots = experts.shape
    if num_slots > num_experts:
        raise RoutingError(f"a token has {num_slots} slots and there are {num_experts} experts")
    most = _check_capacity(capacity, padded, num_experts)
    if (config.num_experts, config.num_slots) != (num_experts, num_slots):
        raise RoutingError(
            f"the configuration {config} is not for {num_experts} experts and {num_slots} slots"
        )
    max_rows = num_experts * most if padded else min(num_tokens * num_slots, num_experts * most)
    offsets = np.arange(num_experts + 1, dtype=np.int32) * np.int32(most if padded else 0)
    return PreparedPermutation(
        num_tokens,
        config,
        most,
        padded,
        tally=to_device(np.zeros(num_experts + 2, np.int32)),
        offsets=to_device(offsets),
        source=to_device(np.full(max_rows, -1, np.int32)),
        destination=to_device(np.full((num_tokens, num_slots), -1, np.int32)),
        parts={},
        experts=experts,
    )


def prepare_permutation(
    experts: Any,
    num_experts: int,
    capacity: int | None = None,
    *,
    padded: bool = False,
    config: Config | None = None,
) -> PreparedPermutation:
    """Allocate the arrays of a permutation and prepare its launches.

    Args:
        experts: int32 [T, k], host or device: what a router wrote; read anew by every launch.
        num_experts: E.
        capacity: the most rows of an expert, the first in the order of the slots; None for no limit.
        padded: give every expert exactly `capacity` rows.
        config: compile-time constants, None for the device's own.

    Raises:
        RoutingError: shapes, dtype or capacity make no sense.
    """
    experts = to_device(experts)
    config = config or _default_config(num_experts, experts.shape[1] if len(experts.shape) == 2 else 0)
    order = allocate_permutation(experts, num_experts, capacity, config, padded=padded)
    config.validate()
    total, threads = order.num_tokens * config.num_slots, config.threads
    if not total:
        return order
    rounds = max(1, -(-total // (threads * config.most_chunks)))
    num_chunks, chunk = -(-total // (rounds * threads)), np.int32(rounds * threads)
    chunk_counts = cuda.to_device(np.zeros((num_experts + 1, num_chunks), np.int32))
    flat, most = order.experts.reshape(total), np.int32(order.capacity)
    counting = (flat, chunk, chunk_counts, order.source)
    scanning = (most, np.int32(padded), chunk_counts, order.offsets, order.tally)
    rows = order.destination.reshape(total)
    placing = (flat, chunk, chunk_counts, order.offsets, most, rows, order.source)
    parts: dict[str, Part] = {
        "count": Launch(make_count(config), num_chunks, threads, counting),
        "scan": Launch(make_scan(config), 1, config.scan_threads, scanning),
        "place": Launch(make_place(config), num_chunks, threads, placing),
    }
    cuda.synchronize()  # why: small uploads return before they have landed, and other streams do not wait
    return replace(order, parts=parts)


def _default_config(num_experts: int, num_slots: int) -> Config:
    config = Config(num_experts, num_slots)
    if not device.choose().is_gpu:
        config = replace(config, threads=64, scan_threads=64)
    while config.shared_bytes > DEFAULT_SHARED_BYTES and config.num_warps > 1:
        config = replace(config, threads=config.threads // 2)
    return config


def _check_capacity(capacity: int | None, padded: bool, num_experts: int) -> int:
    if capacity is None:
        if padded:
            raise RoutingError("padding to the capacity needs a capacity")
        return NO_CAPACITY
    if capacity < 0:
        raise RoutingError(f"the capacity is {capacity}: use 0 or more")
    if padded and num_experts * capacity > LARGEST_EXTENT:
        raise RoutingError(f"{num_experts} experts with {capacity} rows each do not fit into 32-bit offsets")
    return min(capacity, NO_CAPACITY)


@dataclass
class PreparedRows:
    """Gather or scatter, ready to be launched: call it with a stream.

    Attributes:
        config: compile-time constants.
        output: what it writes, on the device: rows [max_rows, D], or y [T, D].
        launch: None if there is nothing to do.
    """

    config: RowConfig
    output: Any
    launch: Launch | None

    def __call__(self, stream: Any = None) -> None:
        """Enqueue it; allocates nothing."""
        if self.launch is not None:
            self.launch(stream)


def prepare_gather(
    x: Any, order: PreparedPermutation, rows: Any = None, *, by: str = "", config: RowConfig | None = None
) -> PreparedRows:
    """Prepare the copy of tokens into the rows of their experts.

    Args:
        x: [T, D], host or device; any dtype of `DTYPES`.
        order: where the rows are; read anew by every launch.
        rows: [max_rows, D] on the device, None to allocate it.  Rows from offsets[E] on are not touched.
        by: "token" reads each token once, "row" writes each row once and also clears padding; "" picks
            the one that this permutation needs.
        config: compile-time constants, None to choose them.

    Raises:
        ProblemError: shapes or dtypes do not match.
    """
    x = to_device(x)
    _check_rows("x", x, order.num_tokens)
    if rows is None:
        rows = empty_rows((order.max_rows, x.shape[1]), x.dtype)
    _check_rows("rows", rows, order.max_rows, x)
    by = by or ("row" if order.padded else "token")
    if by not in ("token", "row"):
        raise ProblemError(f"by is {by!r}: use 'token' or 'row'")
    if by == "token" and order.padded:
        raise ProblemError("padding has no token that could fill it: gather by row")
    config = config or _row_config(order, x, x, rows)
    num_blocks = order.num_tokens if by == "token" else order.max_rows
    if not (num_blocks and order.num_tokens and x.shape[1]):
        return PreparedRows(config, rows, None)
    units, num_units = as_units(x, config.vector), _num_units(x, config.vector)
    arguments: tuple[Any, ...]
    if by == "token":
        kernel = make_gather(config)
        arguments = (units, order.destination, num_units, as_units(rows, config.vector))
    else:
        kernel = make_gather_by_row(config)
        arguments = (units, order.source, order.offsets, num_units, as_units(rows, config.vector))
    return PreparedRows(config, rows, Launch(kernel, num_blocks, config.threads, arguments))


def prepare_scatter(
    rows: Any,
    order: PreparedPermutation,
    weights: Any,
    y: Any = None,
    residual: Any = None,
    *,
    config: RowConfig | None = None,
) -> PreparedRows:
    """Prepare the weighted sum of each token's rows.

    Args:
        rows: [max_rows, D] on the device: float32, float16 or bfloat16.
        order: where the rows are; read anew by every launch.
        weights: float32 [T, k], host or device.
        y: [T, D] on the device, None to allocate it.
        residual: [T, D] to add, of the rows' dtype; may be y itself.
        config: compile-time constants, None to choose them.

    Raises:
        ProblemError: shapes or dtypes do not match, or no sums are computed in this dtype.
    """
    rows, weights = to_device(rows), to_device(weights)
    _check_rows("rows", rows, order.max_rows)
    if rows.dtype.itemsize < 2:
        raise ProblemError(f"rows are {rows.dtype}: results are summed in 16 or 32 bits")
    wanted = (order.num_tokens, order.config.num_slots)
    if tuple(weights.shape) != wanted or weights.dtype != np.float32:
        raise ProblemError(f"weights must be float32 {wanted}, got {weights.dtype} {tuple(weights.shape)}")
    if y is None:
        y = empty_rows((order.num_tokens, rows.shape[1]), rows.dtype)
    _check_rows("y", y, order.num_tokens, rows)
    if residual is not None:
        residual = to_device(residual)
        _check_rows("residual", residual, order.num_tokens, rows)
    base = y if residual is None else residual
    config = config or _row_config(order, rows, rows, y, base, with_residual=residual is not None)
    if not (order.num_tokens and rows.shape[1]):
        return PreparedRows(config, y, None)
    if not order.max_rows:  # why: a kernel wants an address, also where it will never load from it
        rows = empty_rows((1, rows.shape[1]), rows.dtype)
    arguments = (
        as_units(rows, config.vector),
        order.destination,
        weights,
        as_units(base, config.vector),
        _num_units(rows, config.vector),
        as_units(y, config.vector),
    )
    return PreparedRows(config, y, Launch(make_scatter(config), order.num_tokens, config.threads, arguments))


def as_units(array: Any, vector: bool) -> Any:
    """The same memory as unsigned integers: 32-bit words for vectors, else elements."""
    return array.view(np.dtype(np.uint32) if vector else _bits(array.dtype))


def _bits(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _num_units(array: Any, vector: bool) -> np.int32:
    row_bytes = array.shape[1] * array.dtype.itemsize
    return np.int32(row_bytes // VECTOR_BYTES if vector else array.shape[1])


def units_of(like: Any, *arrays: Any) -> tuple[str, bool, np.int32]:
    """How rows like these are moved: their dtype, whether in vectors, and how many units a row has.

    Vectors need rows and arrays that begin at multiples of 16 bytes.
    """
    row_bytes = like.shape[1] * like.dtype.itemsize
    vector = row_bytes % VECTOR_BYTES == 0 and all(start_of(array) % VECTOR_BYTES == 0 for array in arrays)
    return _dtype_name(like), vector, np.int32(row_bytes // VECTOR_BYTES if vector else like.shape[1])


def _row_config(
    order: PreparedPermutation, like: Any, *arrays: Any, with_residual: bool = False
) -> RowConfig:
    """The widest access that fits, and threads for one row."""
    dtype, vector, num_units = units_of(like, *arrays)
    most = 256 if device.choose().is_gpu else 32
    threads = min(most, max(32, -(-int(num_units) // 32) * 32))
    return RowConfig(order.config.num_slots, dtype, threads, vector, with_residual)


def _dtype_name(array: Any) -> str:
    for name, dtype in DTYPES.items():
        if array.dtype == dtype:
            return name
    raise ProblemError(f"rows of {array.dtype} are not known: use one of {', '.join(DTYPES)}")


def empty_rows(shape: tuple[int, int], dtype: np.dtype[Any]) -> Any:
    """A device array that holds anything, of any dtype of `DTYPES`."""
    return cuda.device_array(shape, _bits(dtype)).view(dtype)


def _check_rows(label: str, array: Any, num_rows: int, like: Any = None) -> None:
    width = array.shape[1] if like is None else like.shape[1]
    if array.ndim != 2 or tuple(array.shape) != (num_rows, width):
        raise ProblemError(f"{label} has shape {tuple(array.shape)}, wanted {(num_rows, width)}")
    if like is not None and array.dtype != like.dtype:
        raise ProblemError(f"{label} is {array.dtype}, wanted {like.dtype}")
    _dtype_name(array)
