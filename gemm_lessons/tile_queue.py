"""The tiles of a ragged problem in the order in which a persistent kernel should take them, on the device.

    tickets  0 ......................... | ......... | ................................
             full tiles of all experts,    the last    the experts' tails, largest first
             whole waves of them           full tiles,
                                           cut in pieces

Full tiles all cost the same, so the last of them should leave no worker idle for long: those that do not
fill a wave are cut in two or four along the tokens if the pieces still fit in one wave.  Tails cost less,
so they come last and fill the gaps.  Within an expert, tiles are numbered band by band, down the token
tiles of a band first: workers that run at the same time then share few rows of x and w, and L2 holds them.

The counts are read from device memory, so that a replayed graph may bring new ones, and are clamped to
the rows that exist.  A whole warp looks a ticket up together; each lane looks after one expert of 32.
"""

from __future__ import annotations

from typing import Any

from gemm_lessons import device
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.integer import div_u32
from gemm_lessons.schedule import ceil_div

device.choose()

from numba import cuda, int32  # noqa: E402  why late: the device is chosen before Numba is imported

LANES = 32
ALL_LANES = 0xFFFFFFFF
MOST_PIECES = 4

# What a lane remembers between tickets: where the queue stands, and the expert that it looks after.
FULL_TILES, TAILS, DONE = 0, 1, 2  # values of PASS
PASS, CHUNK, BEFORE, TOTAL = 0, 1, 2, 3  # 32 experts from CHUNK on own TOTAL tiles; BEFORE lie before them
FIRST, ROWS, START, COUNT = 4, 5, 6, 7  # this expert's first row, its rows, its tiles of the chunk's
WHOLE, CUT, CUT_SHIFT = 8, 9, 10  # full tiles left whole, full tiles cut, into 1 << CUT_SHIFT pieces
MEMORY = 11


def make_tile_queue(BM: int, BN: int, band: int) -> tuple[Any, Any]:
    """Make the device functions that look tickets up.

    Args:
        BM: tokens of a full tile, a power of two.
        BN: features of a tile.
        band: token tiles in a band.

    Returns:
        `open_queue(memory, offsets, total_tokens, tiles_n, num_workers)`, to be called once, and
        `find_tile(memory, offsets, total_tokens, tiles_n, ticket)`, to be called with rising tickets;
        both by a whole warp, with an int32 local array of `MEMORY` elements.  `find_tile` returns
        (group, first row, rows, first feature), and 0 rows after the last tile.
    """
    shift = BM.bit_length() - 1

    @inlined
    def rows_of(offsets, group, total_tokens):
        """First row and rows of an expert; no rows past the last expert, none outside x."""
        if group >= offsets.shape[0] - 1:
            return int32(0), int32(0)
        first = min(max(offsets[group], int32(0)), total_tokens)
        return int32(first), int32(max(min(offsets[group + 1], total_tokens) - first, 0))

    @inlined
    def visit(memory, offsets, total_tokens, tiles_n):
        """Look at the 32 experts of the current chunk in the current pass."""
        lane = int32(cuda.threadIdx.x & 31)
        group = int32(memory[CHUNK] + lane)
        first, rows = rows_of(offsets, group, total_tokens)
        full = int32(rows >> shift)
        tail = int32(rows - (full << shift))
        key, count = int32(0), int32(full * tiles_n)
        if memory[PASS] == TAILS:
            key = tail
            count = tiles_n if tail > 0 else int32(0)
        start, total = int32(0), int32(0)
        for other in range(LANES):
            other_key = cuda.shfl_sync(ALL_LANES, key, other)
            other_count = cuda.shfl_sync(ALL_LANES, count, other)
            total += other_count
            if other_key > key or (other_key == key and other < lane):
                start += other_count
        memory[FIRST], memory[ROWS] = first, rows
        memory[START], memory[COUNT], memory[TOTAL] = start, count, total

    @inlined
    def open_queue(memory, offsets, total_tokens, tiles_n, num_workers):
        num_full = int32(0)
        for group in range(int32(cuda.threadIdx.x & 31), offsets.shape[0] - 1, LANES):
            _, rows = rows_of(offsets, group, total_tokens)
            num_full += (rows >> shift) * tiles_n
        for distance in (16, 8, 4, 2, 1):
            num_full += cuda.shfl_xor_sync(ALL_LANES, num_full, distance)
        last_wave = int32(num_full - div_u32(num_full, num_workers) * num_workers)
        memory[WHOLE] = int32(num_full - last_wave)
        memory[CUT] = last_wave
        memory[CUT_SHIFT] = 0
        if last_wave * 4 <= num_workers:
            memory[CUT_SHIFT] = 2
        elif last_wave * 2 <= num_workers:
            memory[CUT_SHIFT] = 1
        memory[PASS] = FULL_TILES if num_full > 0 else TAILS
        memory[CHUNK] = -LANES  # before the first chunk, whose experts the first look-up visits
        memory[BEFORE] = memory[TOTAL] = memory[START] = memory[COUNT] = 0

    @inlined
    def find_tile(memory, offsets, total_tokens, tiles_n, ticket):
        tile, piece, cut = ticket, int32(0), int32(0)
        beyond = int32(ticket - memory[WHOLE])
        if beyond >= 0:
            num_pieces = int32(memory[CUT] << memory[CUT_SHIFT])
            if beyond < num_pieces:
                cut = memory[CUT_SHIFT]
                tile = int32(memory[WHOLE] + (beyond >> cut))
                piece = int32(beyond & ((1 << cut) - 1))
            else:
                tile = int32(ticket - num_pieces + memory[CUT])
        while memory[PASS] < DONE:
            within = int32(tile - memory[BEFORE] - memory[START])
            votes = cuda.ballot_sync(ALL_LANES, within >= 0 and within < memory[COUNT])
            if votes != 0:
                owner = cuda.ffs(votes) - 1
                within = cuda.shfl_sync(ALL_LANES, within, owner)
                first = cuda.shfl_sync(ALL_LANES, memory[FIRST], owner)
                rows = cuda.shfl_sync(ALL_LANES, memory[ROWS], owner)
                full = int32(rows >> shift)
                if memory[PASS] == TAILS:
                    tile_m, tile_n = full, within
                    height = int32(rows - (full << shift))
                else:
                    first_m = int32(div_u32(within, band * tiles_n) * band)
                    band_rows = int32(min(full - first_m, band))
                    within = int32(within - first_m * tiles_n)
                    tile_n = div_u32(within, band_rows)
                    tile_m = int32(first_m + within - tile_n * band_rows)
                    height = int32(BM >> cut)
                row = int32(first + (tile_m << shift) + piece * height)
                return int32(memory[CHUNK] + owner), row, height, int32(tile_n * BN)
            memory[BEFORE] += memory[TOTAL]
            memory[CHUNK] += LANES
            if memory[CHUNK] >= offsets.shape[0] - 1:
                memory[CHUNK] = 0
                memory[PASS] += 1
            if memory[PASS] < DONE:
                visit(memory, offsets, total_tokens, tiles_n)
        return int32(0), int32(0), int32(0), int32(0)

    return open_queue, find_tile


def most_tickets(problem: GroupedProblem, BM: int, BN: int) -> int:
    """How many tickets there can be at most for this many tokens and experts, however they are routed."""
    full, tails = problem.total_tokens // BM, min(problem.num_groups, problem.total_tokens)
    return (MOST_PIECES * full + tails) * ceil_div(problem.N, BN)
