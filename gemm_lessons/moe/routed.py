"""Float32 products with offsets on the device, and the gather fused into the load if that is wanted.

Picture:
    source [rows]   3 8 | 1 | 0 5 9        the slot of each row of the product, token * k + slot
    s_x [BM, BK]    row i of the slab comes from x[source[first_row + i] / k], not from x[first_row + i]

What changed: the work loop of `masked`, on rows that lie end to end instead of in slabs: tickets walk the
offsets, which only the device knows. Its tile function, that of `tiled`, may fetch x through an index; then
no sorted copy of the tokens is made.

Why it should help: no slabs as large as the worst case, no copies into them, and no host. With the index,
the gather, which writes every routed row once and reads it again, is saved, too.

When it will not: an index is looked up again for every slab of K, and the copy is cheap: an element of a row
takes part in N multiply-adds, and the gather moves it once. The index saves memory, hardly time.

What to measure: gather and gate_up of the layer in float32 together, with `gather="kernel"` and `"load"`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Launch, num_resident_blocks
from gemm_lessons.ptx.global_memory import address_of, ld_global_f32, ld_global_v4_f32
from gemm_lessons.ptx.integer import div_u32
from gemm_lessons.ptx.special_registers import tid_x
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps import tiled
from gemm_lessons.steps.persistent import leave
from gemm_lessons.steps.tiled import FLOAT_BYTES, VECTOR, Config

device.choose()

from numba import cuda, int32, uint32  # noqa: E402  why late: the device is chosen before Numba is imported

SIGNATURE = (
    "void(float32[:, ::1], int32[::1], uint32, float32[:, :, ::1], int32[::1], int32[::1], int32[::1],"
    " float32[:, ::1])"
)


def make_copies(config: Config, num_rows: int) -> tuple[Any, Any]:
    """`tiled.make_copies` for x = (tokens [T, K], source [rows], k): a row is where its token lies."""
    chunks = config.BK // VECTOR  # 128-bit pieces of a slab's row
    rows_at_once = config.num_threads // chunks
    num_loads = num_rows // rows_at_once
    vector_loads = config.vector_loads
    _, keep = tiled.make_copies(config, num_rows)

    @cuda.jit(device=True)
    def fetch(x, first_row, last_row, first_k, r_next):
        tokens, source, num_slots = x
        thread = tid_x()
        k = first_k + thread % chunks * VECTOR
        num_k = tokens.shape[1]
        start = address_of(tokens, (0, 0))
        for i in range(num_loads):
            row = first_row + thread // chunks + i * rows_at_once
            slot = int32(source[row]) if row < last_row else int32(-1)
            token = div_u32(uint32(max(slot, int32(0))), num_slots)
            address = start + (token * num_k + k) * FLOAT_BYTES
            # why slot and not row: a padded routing has rows of no token, which are zero.
            if vector_loads:
                values = ld_global_v4_f32(address, slot >= 0 and k < num_k)
                r_next[i, 0], r_next[i, 1], r_next[i, 2], r_next[i, 3] = values
            else:
                for e in range(VECTOR):
                    inside = slot >= 0 and k + e < num_k
                    r_next[i, e] = ld_global_f32(address + e * FLOAT_BYTES, inside)

    return fetch, keep


@cache
def make_kernel(config: Config, indexed: bool) -> Any:
    """The work loop: x [T, K], source [rows], k, w [E, N, K], offsets [E + 1], y [rows, N].

    If it is not indexed, x is [rows, K], and source and k are not looked at.  tickets [1] and num_finished
    [1] are zero between launches.  Offsets are clamped to the rows that exist.
    """
    BM, BN = config.BM, config.BN
    multiply_tile = tiled.make_tile_function(config, make_copies if indexed else tiled.make_copies)

    if indexed:

        @cuda.jit(device=True)
        def rows_of(x, source, num_slots):
            return x, source, num_slots
    else:

        @cuda.jit(device=True)
        def rows_of(x, source, num_slots):
            return x

    @cuda.jit(device=True)
    def clamp(row, num_rows):
        return min(max(row, 0), num_rows)

    @cuda.jit(launch_bounds=(config.num_threads, config.blocks_per_sm))
    def routed_kernel(x, source, num_slots, w, offsets, tickets, num_finished, y):
        s_tile = cuda.shared.array(2, int32)
        leader = cuda.threadIdx.x == 0
        num_groups, num_rows = w.shape[0], y.shape[0]
        tiles_n = (w.shape[1] + BN - 1) // BN

        while True:
            if leader:
                tile = cuda.atomic.add(tickets, 0, 1)
                group = 0
                while group < num_groups:
                    rows = clamp(offsets[group + 1], num_rows) - clamp(offsets[group], num_rows)
                    num_tiles = (max(rows, 0) + BM - 1) // BM * tiles_n
                    if tile < num_tiles:
                        break
                    tile -= num_tiles
                    group += 1
                s_tile[0], s_tile[1] = group, tile
            cuda.syncthreads()  # why: nobody may read the tile before the leader has written it
            group, tile = s_tile[0], s_tile[1]
            cuda.syncthreads()  # why: the leader may not overwrite it before everybody has read it
            if group == num_groups:
                break
            first_row = clamp(offsets[group], num_rows) + tile // tiles_n * BM
            last_row = clamp(offsets[group + 1], num_rows)
            rows_of_x = rows_of(x, source, num_slots)
            multiply_tile(rows_of_x, w[group], y, first_row, last_row, tile % tiles_n * BN)

        if leader:
            leave(tickets, num_finished)

    return routed_kernel


def bind(
    config: Config, x: Any, w: Any, offsets: Any, y: Any, source: Any = None, num_slots: int = 1
) -> Launch:
    """Prepare the launch for arrays that exist, y with rows.

    Args:
        config: compile-time constants.
        x: float32 device array [rows, K], or [num_tokens, K] with a source.
        w: float32 device array [num_experts, N, K].
        offsets: int32 device array [num_experts + 1], read by every launch anew.
        y: float32 device array [rows, N].
        source: int32 device array [rows]: the slot of each row, negative for none; None for x in rows.
        num_slots: k, slots of a token.
    """
    indexed = source is not None
    if not indexed:
        source = cuda.to_device(np.zeros(1, np.int32))
    tickets, num_finished = (cuda.to_device(np.zeros(1, np.int32)) for _ in range(2))
    arguments = (x, source, np.uint32(num_slots), w, offsets, tickets, num_finished, y)
    kernel = make_kernel(config, indexed)
    most_tiles = (ceil_div(y.shape[0], config.BM) + w.shape[0]) * ceil_div(y.shape[1], config.BN)
    num_blocks = min(num_resident_blocks(kernel, config.num_threads, arguments), most_tiles)
    return Launch(kernel, num_blocks, config.num_threads, arguments)
