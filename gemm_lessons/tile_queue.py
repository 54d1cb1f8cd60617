"""The tiles of a ragged problem in the order in which a persistent kernel should take them, on the device.

    tickets  0 ................................. | ......... | ..............................
             expert by expert, each with its       the last    the last experts' tails,
             tail; the last experts' full tiles    full tiles   largest first
             only                                  in pieces

A tail is an expert's last, shorter tile.  It needs the same weights as the full tiles, for less work, so it
runs beside them, while L2 holds their weights.  The tails of the last experts come last of all: they are
short, and fill the gaps at the end.  They are as few as that takes, half as many as there are workers.
Full tiles all cost the same, so the last of them should leave no worker idle for long: those that do not
fill a wave are cut into pieces along the tokens if the pieces still fit in one wave.  Within an expert,
tiles are numbered band by band, down the token tiles of a band first: workers that run at the same time then
share few rows of x and w, and L2 holds them.

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

from numba import cuda, int32, uint32  # noqa: E402  why late: the device is chosen before Numba is imported

LANES = 32
ALL_LANES = 0xFFFFFFFF
MOST_PIECES = 4

# What a lane remembers between tickets: where the queue stands, and the expert that it looks after.
IN_ORDER, HELD_TAILS, DONE = 0, 1, 2  # values of PASS
PASS, CHUNK, BEFORE, TOTAL = 0, 1, 2, 3  # 32 experts from CHUNK on own TOTAL tiles; BEFORE lie before them
FIRST, ROWS, START, COUNT = 4, 5, 6, 7  # this expert's first row, its rows, its tiles of the chunk's
HELD = 8  # from this expert on, tails are held back
WHOLE, CUT, PIECES = 9, 10, 11  # tiles of the first pass left whole, and those cut, into so many pieces
MEMORY = 12


def make_tile_queue(BM: int, BN: int, band: int, least: int) -> tuple[Any, Any]:
    """Make the device functions that look tickets up.

    Args:
        BM: tokens of a full tile.
        BN: features of a tile.
        band: token tiles in a band.
        least: pieces of a tile have a multiple of so many tokens.

    Returns:
        `open_queue(memory, offsets, total_tokens, tiles_n, num_workers)`, to be called once, and
        `find_tile(memory, offsets, total_tokens, tiles_n, ticket)`, to be called with rising tickets;
        both by a whole warp, with an int32 local array of `MEMORY` elements.  `find_tile` returns
        (group, first row, rows, first feature), and 0 rows after the last tile.
    """
    cuts = tuple(n for n in range(1, MOST_PIECES + 1) if BM % (n * least) == 0)  # fewest pieces first

    @inlined
    def rows_of(offsets, group, total_tokens):
        """First row and rows of an expert; no rows past the last expert, none outside x."""
        if group >= offsets.shape[0] - 1:
            return int32(0), int32(0)
        first = min(max(offsets[group], int32(0)), total_tokens)
        return int32(first), int32(max(min(offsets[group + 1], total_tokens) - first, 0))

    @inlined
    def tiles_of(rows):
        """Full tiles of so many rows, and the rows of their tail."""
        full = div_u32(rows, BM)
        return int32(full), int32(rows - full * BM)

    @inlined
    def visit(memory, offsets, total_tokens, tiles_n):
        """Look at the 32 experts of the current chunk in the current pass."""
        lane = int32(cuda.threadIdx.x & 31)
        group = int32(memory[CHUNK] + lane)
        first, rows = rows_of(offsets, group, total_tokens)
        full, tail = tiles_of(rows)
        has_tail = tail > 0
        held = has_tail and group >= memory[HELD]
        key, count = int32(0), int32((full + (has_tail and not held)) * tiles_n)
        if memory[PASS] == HELD_TAILS:
            key = tail
            count = tiles_n if held else int32(0)
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
        lane = int32(cuda.threadIdx.x & 31)
        wanted = div_u32((num_workers >> 1) + tiles_n - 1, tiles_n)  # experts whose tails are held back
        searching = True
        num_tiles, num_last = int32(0), int32(0)  # of the first pass, and those behind all tails in it
        chunk = int32((offsets.shape[0] - 2) & -LANES)
        while chunk >= 0:  # from the last experts to the first
            _, rows = rows_of(offsets, int32(chunk + lane), total_tokens)
            full, tail = tiles_of(rows)
            tails = uint32(cuda.ballot_sync(ALL_LANES, tail > 0))
            # why int32: a comparison of signed and unsigned numbers is one of float64 in Numba
            later = int32(cuda.popc(uint32(tails >> uint32(lane))))  # tails, this expert's and those after it
            held = searching and later <= wanted
            if searching:
                num_held = int32(cuda.popc(cuda.ballot_sync(ALL_LANES, held)))
                memory[HELD] = int32(chunk + LANES - num_held)
                wanted = int32(wanted - int32(cuda.popc(tails)))
                searching = num_held == LANES
            num_tiles += full * tiles_n
            if held:
                num_last += full * tiles_n
            elif tail > 0:
                num_tiles += tiles_n
            chunk = int32(chunk - LANES)
        for distance in (16, 8, 4, 2, 1):
            num_tiles += cuda.shfl_xor_sync(ALL_LANES, num_tiles, distance)
            num_last += cuda.shfl_xor_sync(ALL_LANES, num_last, distance)
        last_wave = int32(num_tiles - div_u32(num_tiles, num_workers) * num_workers)
        memory[WHOLE], memory[CUT], memory[PIECES] = int32(num_tiles - last_wave), last_wave, 1
        for pieces in cuts:
            if last_wave * pieces <= num_workers and last_wave <= num_last:
                memory[PIECES] = pieces
        memory[PASS] = IN_ORDER if num_tiles > 0 else HELD_TAILS
        memory[CHUNK] = -LANES  # before the first chunk, whose experts the first look-up visits
        memory[BEFORE] = memory[TOTAL] = memory[START] = memory[COUNT] = 0

    @inlined
    def find_tile(memory, offsets, total_tokens, tiles_n, ticket):
        tile, piece, pieces = ticket, int32(0), int32(1)
        beyond = int32(ticket - memory[WHOLE])
        if beyond >= 0:
            num_pieces = int32(memory[CUT] * memory[PIECES])
            if beyond < num_pieces:
                pieces = memory[PIECES]
                cut = div_u32(beyond, pieces)
                tile = int32(memory[WHOLE] + cut)
                piece = int32(beyond - cut * pieces)
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
                group = int32(memory[CHUNK] + owner)
                full, tail = tiles_of(rows)
                if memory[PASS] == HELD_TAILS:
                    tile_m, tile_n = full, within
                else:
                    tiles_m = full
                    if tail > 0 and group < memory[HELD]:
                        tiles_m = int32(full + 1)
                    first_m = int32(div_u32(within, band * tiles_n) * band)
                    band_rows = int32(min(tiles_m - first_m, band))
                    within = int32(within - first_m * tiles_n)
                    tile_n = div_u32(within, band_rows)
                    tile_m = int32(first_m + within - tile_n * band_rows)
                height = div_u32(BM, pieces)
                start = int32(tile_m * BM + piece * height)
                return group, int32(first + start), int32(min(rows - start, height)), int32(tile_n * BN)
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
