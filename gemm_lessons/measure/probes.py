"""Kernels that reach for the device's limits: reading, copying, and multiply-adds in registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons import device

device.choose()

from numba import cuda, float32, int32, int64, uint32  # noqa: E402  why late: the device is chosen first

from gemm_lessons.ptx.global_memory import address_of, ld_global_v4_f32  # noqa: E402
from gemm_lessons.ptx.matrix import mma_m16n8k16  # noqa: E402

THREADS = 256
BLOCKS_PER_SM = 8  # 2048 threads: as many as an SM of a data-center GPU holds
READS = 4  # loads of 16 bytes in flight per thread: 128 KB on an SM, four times bandwidth x latency
CHAINS = 8  # independent multiply-adds per thread: more than the latency of one
FMA_UNROLL = 32
MMA_CHAINS = 16  # independent tiles of a warp, as many as half of a 64 x 64 warp tile
MMA_SUMS = 4 * MMA_CHAINS  # of a lane
MMA_FLOPS = 2 * 16 * 8 * 16
MMA_BLOCKS_PER_SM = 1  # of 8 warps, two for each tensor core


def values_read_at_a_time(grid: int) -> int:
    """Float32 that all threads of a grid have in flight at a time: `read_kernel` reads multiples of it."""
    return grid * THREADS * READS * 4


@cuda.jit
def read_kernel(values: Any, sink: Any) -> None:
    """Read float32, 16 bytes a thread at a time, and keep nothing but their sum.

    There are a multiple of gridsize * READS * 4 of them: what is left over is not read.
    """
    step, first = cuda.gridsize(1), cuda.grid(1)
    total = float32(0.0)
    at = address_of(values, (first * 4,))
    for _ in range(first, values.size // 4 - (READS - 1) * step, READS * step):
        for j in range(READS):
            a, b, c, d = ld_global_v4_f32(int64(at + j * step * 16), 1)
            total += a + b + c + d
        at = int64(at + READS * step * 16)
    if total == float32(1.5):  # why: without a use of what was read, the compiler drops the loads
        sink[0] = total


@cuda.jit(fastmath=True)
def fma_kernel(rounds: Any, a: Any, b: Any, sink: Any) -> None:
    """Multiply and add in registers: rounds * FMA_UNROLL * CHAINS multiply-adds per thread."""
    start = float32(cuda.threadIdx.x)
    r0, r1, r2, r3 = start, start + a, start + b, start - a
    r4, r5, r6, r7 = start - b, start * a, start * b, start + a + b
    for _ in range(int32(rounds)):
        for _ in range(FMA_UNROLL):
            r0 = cuda.fma(r0, a, b)
            r1 = cuda.fma(r1, a, b)
            r2 = cuda.fma(r2, a, b)
            r3 = cuda.fma(r3, a, b)
            r4 = cuda.fma(r4, a, b)
            r5 = cuda.fma(r5, a, b)
            r6 = cuda.fma(r6, a, b)
            r7 = cuda.fma(r7, a, b)
    total = r0 + r1 + r2 + r3 + r4 + r5 + r6 + r7
    if total == float32(12345.0):  # never: see read_kernel
        sink[0] = np.uint64(1)


def _make_mma_kernel(dtype: str) -> Any:
    mma = mma_m16n8k16[dtype]

    @cuda.jit(launch_bounds=(THREADS, MMA_BLOCKS_PER_SM))
    def mma_kernel(rounds: Any, bits: Any, sink: Any) -> None:
        """Multiply tiles in registers: rounds * MMA_CHAINS products of 16 x 8 x 16 per warp.

        bits are operands, two numbers each; random ones, since zeros would cost the tensor cores less power.
        """
        lane = cuda.threadIdx.x
        a0, a1, a2, a3 = bits[lane, 0], bits[lane, 1], bits[lane, 2], bits[lane, 3]
        b0, b1 = bits[lane, 4], bits[lane, 5]
        r_sum = cuda.local.array(MMA_SUMS, float32)
        for i in range(MMA_SUMS):
            r_sum[i] = float32(0.0)
        for _ in range(int32(rounds)):
            for i in range(MMA_CHAINS):
                c0, c1, c2, c3 = r_sum[4 * i], r_sum[4 * i + 1], r_sum[4 * i + 2], r_sum[4 * i + 3]
                c0, c1, c2, c3 = mma(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3)
                r_sum[4 * i], r_sum[4 * i + 1], r_sum[4 * i + 2], r_sum[4 * i + 3] = c0, c1, c2, c3
        total = float32(0.0)
        for i in range(MMA_SUMS):
            total += r_sum[i]
        if total == float32(12345.0):  # never: see read_kernel
            sink[0] = uint32(1)

    return mma_kernel


mma_kernels = {dtype: _make_mma_kernel(dtype) for dtype in ("float16", "bfloat16")}
