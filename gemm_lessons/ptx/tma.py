"""The tensor memory accelerator: one thread asks, a copy engine moves a whole tile.

A tensor map (see `gemm_lessons.tensor_map`) describes the tensor and the box; an instruction names the
box's first element, columns before rows.  What lies outside the tensor reads as zero and is not written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.ptx.mbarrier import mbarrier_of_copy
from gemm_lessons.ptx.swizzle import swizzled
from gemm_lessons.sim.registry import SHARED_WINDOW, Context, InstructionError
from gemm_lessons.tensor_map import ALIGNMENT, ROW_BYTES, SimulatedMap, read_simulated


def _map_at(ctx: Context, address: Any) -> SimulatedMap:
    data, offset = ctx.element(int(address))
    return read_simulated(data.view(np.uint8), offset)


def _known_maps(ctx: Context) -> set[int]:
    known: set[int] = ctx.state("tensor maps", set, "block")
    return known


def _map_in_use(ctx: Context, address: Any) -> SimulatedMap:
    if int(address) not in _known_maps(ctx):
        raise InstructionError(
            "no thread of this block has called fence_proxy_tensormap for this map: the SM may remember"
            " another map that lay at this address before."
        )
    return _map_at(ctx, address)


def _check_shared(address: int, box: SimulatedMap) -> None:
    if address % ROW_BYTES:
        raise InstructionError(f"TMA needs shared addresses that are multiples of {ROW_BYTES}.")
    if box.swizzled and box.box_rows >= 8 and address % 1024:
        raise InstructionError(
            "this box starts inside a group of eight swizzled rows: wgmma would read it at a"
            " multiple of 1024 bytes"
        )


def _read_box(ctx: Context, box: SimulatedMap, column: int, row: int) -> np.ndarray[Any, Any]:
    """The bytes of a box, row by row, zeros outside the tensor."""
    content = np.zeros((box.box_rows, box.row_bytes), np.uint8)
    before = max(-column, 0)  # columns of the box that lie in front of the tensor
    first, num_bytes = before * box.itemsize, box.bytes_inside(column) - before * box.itemsize
    for i in range(box.box_rows):
        if num_bytes > 0 and 0 <= row + i < box.rows:
            source = box.address_of(row + i, column + before)
            content[i, first : first + num_bytes] = ctx.load(source, np.uint8, num_bytes, align=box.itemsize)
    return content


def _places(box: SimulatedMap, address: int) -> np.ndarray[Any, Any]:
    """Where in a box's content each byte from a shared address on is found."""
    return swizzled(address, box.box_bytes) if box.swizzled else np.arange(box.box_bytes)


def _load(ctx: Context, destination: Any, tensor_map: Any, column: Any, row: Any, barrier: Any) -> None:
    box, target = _map_in_use(ctx, tensor_map), int(destination)
    _check_shared(target, box)
    if column * box.itemsize % ALIGNMENT:
        raise InstructionError(
            f"A TMA load starts at a multiple of {ALIGNMENT} bytes of a row, not at column {int(column)}:"
            ' a GPU answers that with "illegal instruction".'
        )
    state = mbarrier_of_copy(ctx, barrier)

    def copy(agent: Context) -> None:
        content = _read_box(agent, box, int(column), int(row))
        agent.store(target, content.reshape(-1)[_places(box, target)], np.uint8, align=16)
        state.land(agent, content.size)

    ctx.later(copy, "the TMA load")


@instruction(
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];",
    "r,l,r,r",
    "void(uint32,uint64,uint32,uint32)",
)
def cp_async_bulk(ctx: Any, destination: Any, source: Any, num_bytes: Any, barrier: Any) -> None:
    """Copy bytes that lie in a row from global to shared memory and count them on a barrier; one thread.

    No tensor map is needed.  Both addresses and the number of bytes are multiples of 16.
    PTX manual: cp.async.bulk.
    """
    target, start, length = int(destination), int(source), int(num_bytes)
    if target % ALIGNMENT or start % ALIGNMENT or length % ALIGNMENT or length < 1:
        raise InstructionError(
            f"cp.async.bulk copies multiples of {ALIGNMENT} bytes between addresses that are multiples of"
            f" {ALIGNMENT}, not {length} bytes to offset {target & 0x3FFFF}."
        )
    state = mbarrier_of_copy(ctx, barrier)

    def copy(agent: Context) -> None:
        agent.store(target, agent.load(start, np.uint8, length, align=ALIGNMENT), np.uint8, align=ALIGNMENT)
        state.land(agent, length)

    ctx.later(copy, "the bulk copy")


@instruction("fence.proxy.tensormap::generic.acquire.sys [$0], 128;", "l", "void(uint64)")
def fence_proxy_tensormap(ctx: Any, tensor_map: Any) -> None:
    """Make the copy engine read a tensor map anew; one thread of a block, with a barrier behind it.

    Needed before the first use of a map in global memory, by each block: memory is given out again, and an
    SM remembers maps by their address.
    PTX manual: membar / fence.
    """
    _map_at(ctx, tensor_map)
    _known_maps(ctx).add(int(tensor_map))


@instruction("prefetch.tensormap [$0];", "l", "void(uint64)")
def prefetch_tensormap(ctx: Any, tensor_map: Any) -> None:
    """Bring a tensor map into the cache before its first use; one thread.

    PTX manual: prefetch.
    """
    _map_at(ctx, tensor_map)


@instruction(
    "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [$0, {$1, $2}];", "l,r,r", "void(uint64,int32,int32)"
)
def tma_prefetch_2d(ctx: Any, tensor_map: Any, column: Any, row: Any) -> None:
    """Bring a box from global memory into L2; one thread.

    PTX manual: cp.async.bulk.prefetch.tensor.
    """
    _map_in_use(ctx, tensor_map)


@instruction(
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$2, $3}], [$4];",
    "r,l,r,r,r",
    "void(uint32,uint64,int32,int32,uint32)",
)
def tma_load_2d(ctx: Any, destination: Any, tensor_map: Any, column: Any, row: Any, barrier: Any) -> None:
    """Copy a box from global to shared memory and count its bytes on a barrier; one thread.

    PTX manual: cp.async.bulk.tensor.
    """
    _load(ctx, destination, tensor_map, column, row, barrier)


@instruction(
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
    " [$0], [$1, {$2, $3}], [$4], $5;",
    "r,l,r,r,r,h",
    "void(uint32,uint64,int32,int32,uint32,uint16)",
)
def tma_load_2d_multicast(
    ctx: Any, destination: Any, tensor_map: Any, column: Any, row: Any, barrier: Any, blocks: Any
) -> None:
    """Copy a box to the same place in several blocks of the cluster; one thread of one block.

    Bit r of `blocks` names the block of rank r.  Each of them counts the bytes on its own barrier.
    PTX manual: cp.async.bulk.tensor.
    """
    if not 0 < blocks < 1 << ctx.cluster_size:
        raise InstructionError(f"blocks {int(blocks):#b} are named, and the cluster has {ctx.cluster_size}.")
    for rank in range(ctx.cluster_size):
        if blocks >> rank & 1:
            there = (rank - ctx.cluster_rank) * SHARED_WINDOW
            _load(ctx, int(destination) + there, tensor_map, column, row, int(barrier) + there)


class _Stores:
    """One thread's stores: the open group, and the closed ones, oldest first."""

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.groups: list[list[Any]] = []


def _stores(ctx: Context) -> _Stores:
    stores: _Stores = ctx.state("tma stores", _Stores, "thread")
    return stores


@instruction(
    "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [$0, {$1, $2}], [$3];",
    "l,r,r,r",
    "void(uint64,int32,int32,uint32)",
)
def tma_store_2d(ctx: Any, tensor_map: Any, column: Any, row: Any, source: Any) -> None:
    """Copy a box from shared to global memory; one thread, after `fence_proxy_async` by the writers.

    What lies past the array's end is left out.  A box may not start before it: a GPU answers that with
    "illegal instruction".
    PTX manual: cp.async.bulk.tensor.
    """
    box, start = _map_in_use(ctx, tensor_map), int(source)
    _check_shared(start, box)
    if row < 0 or column < 0:
        raise InstructionError(f"A TMA store may not start before its array: at {int(row)}, {int(column)}.")

    def copy(agent: Context) -> None:
        stored = agent.load(start, np.uint8, box.box_bytes, align=16)
        content = np.empty_like(stored)
        content[_places(box, start)] = stored
        num_bytes = box.bytes_inside(int(column))
        for i, line in enumerate(content.reshape(-1, box.row_bytes)):
            if num_bytes > 0 and 0 <= row + i < box.rows:
                agent.store(box.address_of(int(row) + i, int(column)), line[:num_bytes], align=box.itemsize)

    _stores(ctx).open.append(ctx.later(copy, "the TMA store", owed=True))


@instruction("cp.async.bulk.commit_group;", "", "void()")
def tma_store_commit(ctx: Any) -> None:
    """Close the group of this thread's stores since the last one.

    PTX manual: cp.async.bulk.commit_group.
    """
    stores = _stores(ctx)
    stores.groups.append(stores.open)
    stores.open = []


def _wait(template: str, most: int) -> Any:
    @instruction(template.format(most), "", "void()")
    def tma_store_wait(ctx: Any) -> None:
        """Wait until at most so many of this thread's groups of stores are unfinished.

        PTX manual: cp.async.bulk.wait_group.
        """
        groups = _stores(ctx).groups
        while len(groups) > most:
            for store in groups.pop(0):
                ctx.join(store, "a TMA store")

    return tma_store_wait


#: tma_store_wait_read[n](): at most n groups still have to read their shared memory.
tma_store_wait_read = {n: _wait("cp.async.bulk.wait_group.read {};", n) for n in range(4)}
#: tma_store_wait[n](): at most n groups are unfinished, their writes included.
tma_store_wait = {n: _wait("cp.async.bulk.wait_group {};", n) for n in range(4)}
