"""Router and gather in one kernel: from tokens to rows sorted by expert in a single launch.

    block 0   | project, choose, count its tokens | ... | places, and copies its tokens, which L2 still holds
    block 1   | project, choose, count its tokens | ... |
    ...       |                                barrier over the whole grid

Where a token's row lies depends on the counts of all other blocks, so one barrier is the least that fusing
needs.  It needs all blocks to be resident, as in `steps.persistent`: do not run two such kernels side by
side, for each could hold the SMs that the other waits for.

Why it should help: six launches become one, the counts and logits are read from caches right after they
were written, and a batch that fits into L2 comes from DRAM once, where the parts read it twice.

When it will not: batches that L2 does not hold, and many experts, since every block sums all blocks' counts.

The results are the same, bit for bit, as those of `make_project`, `prepare_router`, `prepare_permutation`
and `prepare_gather` one after the other; bfloat16 tokens, which `prepare_project` takes to tensor cores,
are projected here by multiply-adds, so their logits differ in the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Launch, num_resident_blocks
from gemm_lessons.moe import permute, project, router_kernels
from gemm_lessons.moe.permute import ALL_LANES, PreparedPermutation
from gemm_lessons.moe.project import TOKENS, allocate_logits
from gemm_lessons.moe.router import ExpertChoice, Router, Sinkhorn
from gemm_lessons.moe.router_kernels import PreparedRouter, config_of
from gemm_lessons.moe.routing import RoutingError
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.steps.persistent import leave

device.choose()

from numba import cuda, float32, int32  # noqa: E402  why late: the device is chosen before


@dataclass(frozen=True)
class Config:
    """Compile-time constants.

    Attributes:
        choose: of the router.
        place: of the permutation.
        dtype: of x.
        vector: rows move 16 bytes at a time.
    """

    choose: router_kernels.Config
    place: permute.Config
    dtype: str
    vector: bool

    @property
    def choice_rows(self) -> int:
        """Tokens whose scores are in shared memory at the same time; 1 where no groups are compared."""
        grouped = self.choose.groups_kept < self.choose.num_groups
        return self.place.threads // self.choose.lanes if grouped else 1

    @property
    def shared_bytes(self) -> int:
        """Static shared memory of a block."""
        E = self.place.num_experts
        return 4 * (E * (self.choice_rows + self.place.num_warps + 1) + 2 * (E + 1))

    def validate(self) -> None:
        """Refuse more experts than a block can count.

        Raises:
            RoutingError: with the number of bytes.
        """
        permute.require_room(self.place, self.shared_bytes, "use fewer threads, or run the parts one by one")


@inlined
def wait_for_all(arrived):
    """A barrier over all blocks of the grid; one thread of each calls it, after a fence."""
    cuda.atomic.add(arrived, 0, 1)
    while cuda.atomic.add(arrived, 0, 0) < cuda.gridDim.x:
        pass


@cache
def make_kernel(config: Config) -> Any:
    """One block for every `chunk` tokens; arguments as in the kernels that it is made of.

    arrived [1] and num_finished [1] are zero between launches.
    """
    E, k, threads = config.place.num_experts, config.place.num_slots, config.place.threads
    bins, num_warps = E + 1, config.place.num_warps
    lanes = config.choose.lanes
    places = threads // lanes  # tokens that a block chooses for at a time
    grouped_rows = config.choice_rows
    project_tokens = project.make_project_tokens(config.dtype, config.vector)
    choose_token = router_kernels.make_choose_token(config.choose)
    count_slots = permute.make_count_slots(config.place)
    place_slots = permute.make_place_slots(config.place)
    load, store = permute.make_units(config.dtype, config.vector)

    @inlined
    def copy_token(x, token, num_units, destination, rows):
        """A warp copies a token to all its rows; four loads are under way at a time."""
        for unit in range(cuda.threadIdx.x & 31, num_units, 128):
            words_0 = load(x, token, unit, True)
            words_1 = load(x, token, min(unit + 32, num_units - 1), unit + 32 < num_units)
            words_2 = load(x, token, min(unit + 64, num_units - 1), unit + 64 < num_units)
            words_3 = load(x, token, min(unit + 96, num_units - 1), unit + 96 < num_units)
            for slot in range(k):
                row = destination[token * k + slot]
                if row >= 0:
                    store(rows, row, unit, words_0)
                    if unit + 32 < num_units:
                        store(rows, row, unit + 32, words_1)
                    if unit + 64 < num_units:
                        store(rows, row, unit + 64, words_2)
                    if unit + 96 < num_units:
                        store(rows, row, unit + 96, words_3)

    @cuda.jit(launch_bounds=(threads, 1))
    def fused_kernel(
        x, w, num_units, bias, chunk, capacity, logits, experts, weights, flat_experts,
        chunk_counts, offsets, tally, destination, source, rows, arrived, num_finished,
    ):  # fmt: skip
        s_choice = cuda.shared.array((grouped_rows, E), float32)
        s_bins = cuda.shared.array(bins, int32)
        s_before = cuda.shared.array(E, int32)
        s_offsets = cuda.shared.array(bins, int32)
        s_counts = cuda.shared.array((num_warps, E), int32)
        tid, block, num_tokens = cuda.threadIdx.x, cuda.blockIdx.x, logits.shape[0]
        lane, warp = tid & 31, tid >> 5
        start = min(block * chunk, num_tokens)
        stop = min(start + chunk, num_tokens)

        for first in range(start + warp * TOKENS, stop, num_warps * TOKENS):
            project_tokens(x, w, num_units, first, stop, logits)
        cuda.syncthreads()  # why: other warps choose from these logits
        place = tid // lanes
        for first in range(start, stop, places):
            choose_token(logits, bias, first + place, stop, s_choice[place % grouped_rows], experts, weights)
        cuda.syncthreads()  # why: other threads count these experts
        count_slots(flat_experts, start * k, stop * k, s_bins)
        for expert in range(tid, bins, threads):
            chunk_counts[expert, block] = s_bins[expert]

        cuda.threadfence()  # why: other blocks read these counts after the barrier
        cuda.syncthreads()  # why: a block has arrived when all its threads have
        if tid == 0:
            wait_for_all(arrived)
        cuda.syncthreads()  # why: nobody may read counts before the barrier
        cuda.threadfence()

        for expert in range(warp, bins, num_warps):
            total, before = int32(0), int32(0)
            for other in range(lane, cuda.gridDim.x, 32):
                count = chunk_counts[expert, other]
                total += count
                if other < block:
                    before += count
            for distance in (16, 8, 4, 2, 1):
                total += cuda.shfl_xor_sync(ALL_LANES, total, distance)
                before += cuda.shfl_xor_sync(ALL_LANES, before, distance)
            if lane == 0:
                s_bins[expert] = total
                if expert < E:
                    s_before[expert] = before
        cuda.syncthreads()  # why: one warp reads what all of them have summed
        if warp == 0:
            dropped = permute.scan_experts(s_bins, E, capacity, False, s_offsets)
            if block == 0 and lane == 31:
                tally[E], tally[E + 1] = dropped, s_bins[E]
        cuda.syncthreads()  # why: everybody needs the offsets
        if block == 0:
            for expert in range(tid, bins, threads):
                offsets[expert] = s_offsets[expert]
                if expert < E:
                    tally[expert] = min(s_bins[expert], capacity)
        for row in range(s_offsets[E] + cuda.grid(1), source.shape[0], cuda.gridsize(1)):
            source[row] = -1

        place_slots(
            flat_experts, start * k, stop * k, s_offsets, capacity, s_before, s_counts, destination, source
        )
        for token in range(start + warp, stop, num_warps):
            copy_token(x, token, num_units, destination, rows)
        if tid == 0:
            leave(arrived, num_finished)

    return fused_kernel


@dataclass
class PreparedFused:
    """The fused kernel, ready to be launched: call it with a stream.

    Attributes:
        logits: float32 [T, E].
        routed: experts and weights; its own parts are not needed.
        order: the permutation, for `prepare_scatter` and the host; its own parts are not needed.
        rows: [max_rows, D], tokens sorted by expert.
        launch: None if there are no tokens.
    """

    logits: Any
    routed: PreparedRouter
    order: PreparedPermutation
    rows: Any
    launch: Launch | None

    def __call__(self, stream: Any = None) -> None:
        """Enqueue it; allocates nothing."""
        if self.launch is not None:
            self.launch(stream)


def prepare_fused(
    router: Router, x: Any, w: Any, bias: Any = None, *, capacity: int | None = None, threads: int = 0
) -> PreparedFused:
    """Prepare the fused router and gather for a router whose tokens choose by themselves.

    Args:
        router: `TopK`, `Switch`, `TopP` or `DeepSeek`.
        x: [T, D], host or device: float32, float16 or bfloat16.
        w: the router's weights, float32 [E, D].
        bias: float32 [E] for `DeepSeek`.
        capacity: None for the router's own.
        threads: of a block; 0 to choose.

    Raises:
        RoutingError: the router needs more than one barrier, or does not fit the experts, or there are
            more of them than shared memory can count.
        ProblemError: shapes or dtypes do not match.
    """
    x, w, logits = allocate_logits(x, w)
    num_tokens, num_experts = logits.shape
    if isinstance(router, ExpertChoice | Sinkhorn):
        raise RoutingError(f"{type(router).__name__} looks at all tokens before any is placed: run its parts")
    routed = router_kernels.allocate_router(router, num_tokens, num_experts, bias)
    num_slots = routed.experts.shape[1]
    threads = threads or (384 if device.choose().is_gpu else 32)
    place = permute.Config(num_experts, num_slots, threads=threads)
    limit = routed.capacity if capacity is None else capacity
    order = permute.allocate_permutation(routed.experts, num_experts, limit, place)
    dtype, vector, num_units = permute.units_of(x, x, w)
    rows = permute.empty_rows((max(order.max_rows, 1), x.shape[1]), x.dtype)[: order.max_rows]
    if not num_tokens:
        return PreparedFused(logits, routed, order, rows, None)
    config = Config(config_of(router, num_experts), place, dtype, vector)
    config.validate()
    kernel = make_kernel(config)
    total = num_tokens * num_slots

    def arguments(chunk: int, num_blocks: int) -> tuple[Any, ...]:
        chunk_counts = cuda.device_array((num_experts + 1, num_blocks), np.int32)
        arrived, num_finished = (cuda.to_device(np.zeros(1, np.int32)) for _ in range(2))
        return (
            permute.as_units(x, vector), w, num_units, routed.bias, np.int32(chunk), np.int32(order.capacity),
            logits, routed.experts, routed.weights, routed.experts.reshape(total), chunk_counts,
            order.offsets, order.tally, order.destination.reshape(total), order.source,
            permute.as_units(rows, vector), arrived, num_finished,
        )  # fmt: skip

    resident = num_resident_blocks(kernel, threads, arguments(1, 1))
    chunk = -(-num_tokens // resident)
    num_blocks = -(-num_tokens // chunk)
    launch = Launch(kernel, num_blocks, threads, arguments(chunk, num_blocks))
    cuda.synchronize()  # why: small uploads return before they have landed, and other streams do not wait
    return PreparedFused(logits, routed, order, rows, launch)
