"""A few tokens per expert: stream the weights at the speed of memory, and hide everything else behind that.

Picture:
    the weights that anyone wants, slab after slab, in one line; empty experts have none

      expert 0, features 0-31 | expert 0, 32-63 | expert 2, 0-31 | expert 2, 32-63 | ...
      '----- block 0 -----' '----- block 1 -----' '----- block 2 -----' '----- block 3 ---

    slab      32 features x 512 bytes of K, 16 KB, and the same K of the expert's tokens
    ring      of slabs in shared memory; cp.async has all but one of them on their way at any time
    plane     of warps, one for each 128 bytes of a slab's rows; a tile's end adds the planes' sums
    tile      32 features x all K.  If blocks share it, each leaves its sums in global memory, and the
              last of them to come adds them up, in the order of k whoever came when

What changed: work is cut by bytes, not by tiles, so every SM reads from start to end; with N = 4096, the 256
tiles of 128 features of eight experts would leave some of 132 SMs idle in the second round. The sum over K
is cut where a share ends (split-K), and always added in the same order: the same bits every time. No warp
has a role, no copy engine is needed.

Why it should help: with four tokens a weight takes part in four multiply-adds, and a GPU can do two
hundred in the time of reading it. Only memory counts. Bytes in flight = bandwidth x latency = 4.8 TB/s
x 0.8 us = 3.8 MB, 29 KB on each of 132 SMs, if no request had to queue; two rings keep 96 KB on their way.
DRAM wants to be read in long pieces: 512 bytes of a row at a time, where 128 cost a tenth of the speed.

When it will not: many tokens. Each tile reads its tokens from L2 again, half as many bytes as it reads of
weights at 64 tokens; an expert with more has its weights read once for each 64. And in FP8 half the bytes
need more instructions, which convert: there an H200's warps wait for each other, not for memory. Shares of
equal bytes end at different times, for SMs differ; handing out the last of them by tickets costs as much.

What to measure: bytes per second over those of a kernel that only reads; slab_bytes of 128, 256 and 512;
num_stages and blocks_per_sm; 1, 8, 16, 32 and 64 tokens per expert, with empty experts between.

Who needs which k: a lane of mma.sync wants pairs of neighbours, 4 bytes at a time. A sum does not care
about the order of its terms, so lane q of four takes 16 neighbouring bytes, of w and of x alike, and spends
them on two (16-bit) or four (e4m3) instructions. The same goes for features: a lane's two rows of 16 are
neighbours, so that it writes them as one word. Shared memory holds pieces as lanes will want them.

Compute capability 8.0 on; e4m3 needs 8.9 and becomes float16 on its way into mma.sync, which is exact.
Sums of 128 of K are scaled and added in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32, int32, int64, uint8, uint32

from gemm_lessons import device
from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts, to_device
from gemm_lessons.problem import DTYPES, GroupedProblem, Inputs, ProblemError
from gemm_lessons.ptx.compiling import inlined, one_of, whole_kernel
from gemm_lessons.ptx.convert import e4m3_to_f16
from gemm_lessons.ptx.cp_async import (
    cp_async_4,
    cp_async_16,
    cp_async_16_stream,
    cp_async_commit,
    cp_async_wait,
    evict_first,
)
from gemm_lessons.ptx.global_memory import address_of, ld_global_v4_f32, st_global_v4_f32
from gemm_lessons.ptx.integer import div_u32
from gemm_lessons.ptx.matrix import mma_m16n8k16, pack
from gemm_lessons.ptx.shared import ld_shared_f32, ld_shared_v4, shared_address, st_global_u32
from gemm_lessons.ptx.sync import fence_acq_rel_gpu
from gemm_lessons.quantize import BLOCK, WEIGHT_BLOCK, QuantizedInputs
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps._host import (
    ConfigError,
    begin,
    begin_quantized,
    require_aligned,
    require_block_size,
    require_power_of_two,
)

launch = launch_parts

SIGNATURE = (
    "void(uint8[:, ::1], uint8[:, :, ::1], float32[:, ::1], float32[:, :, ::1], int32[::1], uint16[:, ::1],"
    " float32[::1], int32[::1])"
)

WARP = 32
ALL_LANES = 0xFFFFFFFF
FEATURES, TOKENS = 16, 8  # of one mma.sync
PIECE_BYTES = 16
CHUNK_BYTES = 64  # of a row: what its four lanes take at a time
LANE_BYTES = WARP * PIECE_BYTES  # a piece of each lane
LINE_BYTES = 128  # of the L1 cache; and of a block of scales, in e4m3
MMA_BITS = 22  # of float32 sums, where tensor cores align their addends: see compare.tolerance
MOST_TOKENS = 64
MOST_STAGES, MOST_PLANES = 8, 4
ENOUGH_STAGES = 4
STATIC_BYTES = 1536  # what a block needs beside the ring and the planes' sums, and what CUDA takes
MOST_SLABS = 2**31 - 1
FP8 = "float8_e4m3fn"


@dataclass(frozen=True)
class Config:
    """Compile-time constants.

    Attributes:
        BN: features of a tile, 16 for each warp of a plane.
        tokens: of a tile, at most.
        slab_bytes: of a row in a slab, 128 for each plane of warps.
        num_stages: slabs in shared memory, all but one of them on their way.
        blocks_per_sm: how many blocks registers and shared memory are rationed for.
        least_slabs: of a share, where there are so many.
        dtype: of x and w: bfloat16, float16 or float8_e4m3fn.
    """

    BN: int = 128
    tokens: int = 16
    slab_bytes: int = 256
    num_stages: int = 5
    blocks_per_sm: int = 1
    least_slabs: int = 2
    dtype: str = "bfloat16"

    @property
    def planes(self) -> int:
        """Planes of warps: each multiplies its own 128 bytes of every row of a slab."""
        return self.slab_bytes // LINE_BYTES

    @property
    def plane_threads(self) -> int:
        """Threads of a plane: a warp for every 16 features."""
        return self.BN // FEATURES * WARP

    @property
    def num_threads(self) -> int:
        """Threads of a block."""
        return self.planes * self.plane_threads

    @property
    def sum_bytes(self) -> int:
        """Static shared memory in which all planes but the first hand over their sums."""
        return (self.planes - 1) * self.plane_threads * 16 * self.widths[0]

    @property
    def scale_bytes(self) -> int:
        """The scales of a slab: for each line, one of each token and one of the weights, in whole pieces."""
        return self.planes * (self.tokens * 4 + PIECE_BYTES) if self.dtype == FP8 else 0

    @property
    def stage_bytes(self) -> int:
        """A slab: weights, tokens, scales."""
        return (self.BN + self.tokens) * self.slab_bytes + self.scale_bytes

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory: the ring, and slack to align it."""
        return self.num_stages * self.stage_bytes + LINE_BYTES

    @property
    def widths(self) -> tuple[int, ...]:
        """How many times 8 tokens a tile may have, widest first: each has its own code."""
        return tuple(1 << i for i in reversed(range((self.tokens // TOKENS).bit_length())))

    def validate(self, problem: GroupedProblem) -> None:
        """Check the constants against each other, the problem and the device.

        Raises:
            ConfigError: the constants do not fit together.
            ProblemError: the step does not take this dtype, N or K.
        """
        require_power_of_two(BN=self.BN, tokens=self.tokens)
        if not 2 * FEATURES <= self.BN <= BLOCK:
            raise ConfigError(f"BN is {self.BN}: use 32 to {BLOCK}, a part of a block of scales")
        if not TOKENS <= self.tokens <= MOST_TOKENS or self.tokens >= self.num_threads:
            raise ConfigError(
                f"tokens is {self.tokens}: use {TOKENS} to {MOST_TOKENS}, fewer than the {self.num_threads}"
                " threads"
            )
        if self.slab_bytes % LINE_BYTES or not 1 <= self.planes <= MOST_PLANES:
            raise ConfigError(
                f"slab_bytes is {self.slab_bytes}: use a multiple of 128, up to {MOST_PLANES} of them"
            )
        require_power_of_two(slab_bytes=self.slab_bytes)
        require_block_size(self.num_threads)
        if not 2 <= self.num_stages <= len(cp_async_wait) + 1:
            raise ConfigError(f"num_stages is {self.num_stages}: use 2 to {len(cp_async_wait) + 1}")
        if self.least_slabs < 1:
            raise ConfigError("a share is one slab at least")
        if problem.dtype not in ("bfloat16", "float16", FP8):
            raise ProblemError(
                f"this step computes in bfloat16, float16 and {FP8}, and the problem is {problem.dtype}"
            )
        least = (8, 9) if problem.dtype == FP8 else (8, 0)
        found = device.choose().compute_capability
        if found < least:
            raise ProblemError(
                "{} needs compute capability {}.{} here, and this GPU has {}.{}".format(
                    problem.dtype, *least, *found
                )
            )
        step = PIECE_BYTES // DTYPES[problem.dtype].itemsize
        if problem.K % step:
            raise ProblemError(
                f"K is {problem.K}: rows are copied in pieces of 16 bytes, so K must be a multiple of"
                f" {step}; pad it to {ceil_div(problem.K, step) * step}"
            )
        if problem.N % 2:
            raise ProblemError(f"N is {problem.N}: outputs are written in pairs, so N must be even")
        if self.most_slabs(problem) > MOST_SLABS:
            raise ProblemError("this problem has more than 2 ** 31 slabs of weights: use the step hopper")

    def most_slabs(self, problem: GroupedProblem) -> int:
        """How many slabs there can be at most for this many tokens and experts, however they are routed."""
        slices = problem.total_tokens // self.tokens + min(problem.num_groups, problem.total_tokens)
        row_bytes = problem.K * DTYPES[problem.dtype].itemsize
        return slices * ceil_div(problem.N, self.BN) * ceil_div(row_bytes, self.slab_bytes)


CONFIG = Config()
SIM_CONFIG = Config(BN=32, num_stages=3, least_slabs=1)


def choose_config(problem: GroupedProblem, shared_bytes_per_block: int) -> Config:
    """Tiles for an expert with four times the average number of tokens, and the deepest ring that fits.

    Long pieces of rows come first, in narrow tiles, whose blocks are so small that two of them share an
    SM: while one hands in its sums, the other reads.  Tokens are read once for each tile, so more than 16
    of them want wide tiles.  A GPU with less shared memory takes the first shape that leaves it a ring of
    four slabs.

    An expert that fits into one tile has its weights read once, and none has more tokens than there are.
    Room for fewer tokens leaves more for slabs, so for bytes on their way.  The rule looks at the sum of the
    counts only, so that it holds for every routing that a replayed graph may bring.

    Args:
        problem: what is computed.
        shared_bytes_per_block: the most that a block may ask for.
    """
    wanted = min(4 * ceil_div(problem.total_tokens, problem.num_groups), problem.total_tokens)
    tokens = next((width for width in (16, 32) if wanted <= width), MOST_TOKENS)
    shapes = [(32, 512, 2), (128, 256, 1), (128, 128, 1)]  # features, bytes of a row, blocks on an SM
    if tokens > 16:
        shapes = shapes[1:]
    if problem.dtype == FP8 and tokens == MOST_TOKENS:
        # why not two planes: with 512 threads each has 128 registers, too few for so many sums of e4m3
        shapes = shapes[1:]
    for BN, slab_bytes, blocks in shapes:
        config = Config(BN, tokens, slab_bytes, blocks_per_sm=blocks, dtype=problem.dtype)
        room = shared_bytes_per_block // blocks - config.sum_bytes - STATIC_BYTES
        config = replace(config, num_stages=min(room // config.stage_bytes, MOST_STAGES))
        if config.num_stages >= ENOUGH_STAGES:
            break
    return config


def make_slices(most_tokens: int) -> tuple[Any, Any]:
    """Make the device functions that find a tile's tokens; both are for a whole warp.

    A slice is what one tile can take of an expert's tokens: empty experts have no slice, and most others
    one.  Offsets are read from device memory, so that a replayed graph may bring new ones, and are
    clamped to the rows that exist.

    Args:
        most_tokens: of a slice, a power of two.

    Returns:
        `count_slices(offsets, total_tokens)`, and
        `find_slice(offsets, total_tokens, number)`, which returns (group, first row, rows).
    """
    shift = most_tokens.bit_length() - 1

    @inlined
    def slices_of(offsets, group, total_tokens):
        """First row, rows and slices of an expert; none past the last one."""
        if group >= offsets.shape[0] - 1:
            return int32(0), int32(0), int32(0)
        first = int32(min(max(offsets[group], int32(0)), total_tokens))
        rows = int32(max(min(offsets[group + 1], total_tokens) - first, 0))
        return first, rows, int32((rows + most_tokens - 1) >> shift)

    @inlined
    def count_slices(offsets, total_tokens):
        count = int32(0)
        for group in range(int32(cuda.threadIdx.x & 31), offsets.shape[0] - 1, WARP):
            _, _, slices = slices_of(offsets, group, total_tokens)
            count += slices
        for distance in (16, 8, 4, 2, 1):
            count += cuda.shfl_xor_sync(ALL_LANES, count, distance)
        return int32(count)

    @inlined
    def find_slice(offsets, total_tokens, number):
        lane = int32(cuda.threadIdx.x & 31)
        before = int32(0)
        for first_group in range(0, int32(offsets.shape[0]) - 1, WARP):
            first, rows, slices = slices_of(offsets, int32(first_group + lane), total_tokens)
            upto = slices  # slices of this expert and those before it in its chunk of 32
            for distance in (1, 2, 4, 8, 16):
                below = cuda.shfl_up_sync(ALL_LANES, upto, distance)
                if lane >= distance:
                    upto = int32(upto + below)
            within = int32(number - before)
            votes = cuda.ballot_sync(ALL_LANES, upto > within)
            if votes != 0:
                owner = cuda.ffs(votes) - 1
                done = int32(max(within - (upto - slices), 0)) << shift
                row = cuda.shfl_sync(ALL_LANES, int32(first + done), owner)
                left = cuda.shfl_sync(ALL_LANES, int32(rows - done), owner)
                return int32(first_group + owner), int32(row), int32(min(left, most_tokens))
            before += cuda.shfl_sync(ALL_LANES, upto, WARP - 1)
        return int32(0), int32(0), int32(0)

    return count_slices, find_slice


@cache
def make_kernel(config: Config) -> Any:
    """The kernel, for rows of bytes: x [total_tokens, K in bytes], w [num_groups, N, K in bytes].

    x_scales [total_tokens, ceil(K / 128)] and w_scales [num_groups, ceil(N / 128), ceil(K / 128)] are read
    for e4m3 only.  offsets [num_groups + 1].  y [total_tokens, N] as 16-bit words.  partials
    [2 * blocks * sums of a thread * threads of a plane], and counters [blocks], zero before and after.
    """
    BN, STAGES, THREADS, WIDTHS = config.BN, config.num_stages, config.num_threads, config.widths
    PLANES, PLANE = config.planes, config.plane_threads
    SLAB_BYTES, STAGE_BYTES = config.slab_bytes, config.stage_bytes
    W_BYTES, X_BYTES, WARP_BYTES = BN * SLAB_BYTES, config.tokens * SLAB_BYTES, FEATURES * LINE_BYTES
    CHUNKS = SLAB_BYTES // CHUNK_BYTES
    CHUNK_SHIFT, PLANE_SHIFT = CHUNKS.bit_length() - 1, PLANE.bit_length() - 1
    LEAST_SLABS, SCALED = config.least_slabs, config.dtype == FP8
    NUM_SUMS = 4 * WIDTHS[0]  # of a thread
    SUMS_SHAPE = (PLANES - 1, NUM_SUMS, PLANE) if PLANES > 1 else (1, 1, 1)
    PART_BYTES = 16 * PLANE  # partial sums of 8 tokens
    TOKEN_STEP = THREADS // WARP // CHUNKS * TOKENS  # tokens that a block copies at a time
    X_PIECES = max(config.tokens // TOKEN_STEP, 1)  # of a thread, at most
    SCALE_THREAD = config.tokens  # copies the scales of the weights; those before it copy the tokens'
    LINE_OF_SCALES = config.tokens * 4 + PIECE_BYTES
    count_slices, find_slice = make_slices(config.tokens)
    mma = mma_m16n8k16["float16" if SCALED else config.dtype]
    pack_pair = pack["bfloat16" if SCALED else config.dtype]
    wait_for_slab = cp_async_wait[STAGES - 2]

    @inlined
    def locate(slab, num_k, tiles_n, offsets, total_tokens):
        """Where a slab belongs: number along K, expert, first row and rows of tokens, first feature."""
        tile = div_u32(slab, num_k)
        number = div_u32(tile, tiles_n)
        group, row, rows = find_slice(offsets, total_tokens, number)
        return int32(slab - tile * num_k), group, row, rows, int32((tile - number * tiles_n) * BN)

    @inlined
    def width_of(rows):
        """How many times 8 tokens are computed for these: the next power of two."""
        width = int32(1)
        while width * TOKENS < rows:
            width = int32(width << 1)
        return width

    @inlined
    def aim_at_x(x, row, k):
        """Where the first of this thread's pieces of x lies in global memory, and its token."""
        warp, lane = int32(cuda.threadIdx.x >> 5), int32(cuda.threadIdx.x & 31)
        piece = int32((warp & (CHUNKS - 1)) * 4 + (lane & 3))
        token = int32((warp >> CHUNK_SHIFT) * TOKENS + (lane >> 2))
        return address_of(x, (row + token, k * SLAB_BYTES + piece * PIECE_BYTES)), token

    @inlined
    def aim_at_w(w, group, feature, k):
        """The same for w, and how many features there are from its row on."""
        lane, plane = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> PLANE_SHIFT)
        piece = int32((lane >> 3 & 1) * 4 + (lane & 3))
        pair = int32((lane >> 4) * 2 + (lane >> 2 & 1))
        row = int32(feature + ((cuda.threadIdx.x & (PLANE - 1)) >> 5) * FEATURES + pair * 2)
        at = int32(k * SLAB_BYTES + plane * LINE_BYTES + piece * PIECE_BYTES)
        return address_of(w, (group, row, at)), int32(w.shape[1] - row)

    @inlined
    def start_x(x_at, tokens, width, bytes_left, row_bytes, slab):
        """Start copying this thread's pieces of x, zeros beyond the tokens and K.

        They lie as multiply's lanes want them: [8 tokens][chunk of K][lane].
        """
        warp, lane = int32(cuda.threadIdx.x >> 5), int32(cuda.threadIdx.x & 31)
        inside = ((warp & (CHUNKS - 1)) * 4 + (lane & 3)) * PIECE_BYTES < bytes_left
        for i in range(X_PIECES):
            if int32((warp >> CHUNK_SHIFT) + i * (TOKEN_STEP // TOKENS)) < width:
                size = PIECE_BYTES if inside and i * TOKEN_STEP < tokens else 0
                source = int64(x_at + int32(i * TOKEN_STEP * row_bytes))
                index = int32(cuda.threadIdx.x + i * THREADS)
                cp_async_16(uint32(slab + W_BYTES + index * PIECE_BYTES), source, size)

    @inlined
    def start_w(w_at, features, bytes_left, row_bytes, policy, slab):
        """Start copying this thread's pieces of its warp's part of w, zeros beyond the features and K.

        They lie as the warp's lanes want them: [chunk of K][row of two][lane].  Eight lanes copy 64 bytes of
        two pairs of rows each, so that they write to all 32 banks, and the warp whole lines.
        """
        lane, plane = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> PLANE_SHIFT)
        inside = plane * LINE_BYTES + ((lane >> 3 & 1) * 4 + (lane & 3)) * PIECE_BYTES < bytes_left
        cell = int32((lane >> 3 & 1) * 64 + ((lane >> 4) * 2 + (lane >> 2 & 1)) * 4 + (lane & 3))
        target = uint32(slab + (cuda.threadIdx.x >> 5) * WARP_BYTES + cell * PIECE_BYTES)
        for i in range(4):
            row = (i >> 1) * (FEATURES // 2) + (i & 1)
            size = PIECE_BYTES if inside and row < features else 0
            there = uint32(target + ((i & 1) * 32 + (i >> 1) * 16) * PIECE_BYTES)
            cp_async_16_stream(there, int64(w_at + int32(row * row_bytes)), size, policy)

    @inlined
    def aim_at_scales(x_scales, w_scales, group, row, rows, feature, k):
        """Where the first scale that this thread copies lies, and whether there is one."""
        thread = int32(cuda.threadIdx.x)
        if thread < SCALE_THREAD:
            return address_of(x_scales, (row + thread, k * PLANES)), thread < rows
        return address_of(w_scales, (group, feature // BLOCK, k * PLANES)), thread == SCALE_THREAD

    @inlined
    def start_scales(scale_at, is_scale, bytes_left, slab):
        """Start copying a slab's scales, one of a thread for each line, zeros beyond the tokens and K."""
        if cuda.threadIdx.x <= SCALE_THREAD:
            for line in range(PLANES):
                size = 4 if is_scale and line * LINE_BYTES < bytes_left else 0
                there = uint32(slab + W_BYTES + X_BYTES + line * LINE_OF_SCALES + cuda.threadIdx.x * 4)
                cp_async_4(there, int64(scale_at + line * 4), size)

    @inlined
    def unpack(a, b):
        """A word of each of two rows of w as mma.sync wants them: float16, which holds every e4m3."""
        a0, a1 = e4m3_to_f16(a)
        b0, b1 = e4m3_to_f16(b)
        return a0, b0, a1, b1

    @inlined
    def multiply_word(w0, w1, w2, w3, x, d0, d1, d2, d3):
        x0, x1 = e4m3_to_f16(x)
        return mma(w0, w1, w2, w3, x0, x1, d0, d1, d2, d3)

    def make_multiply(width):
        num_sums = 4 * width

        @inlined
        def multiply_pairs(acc, slab):
            """Add the products of this warp's part of a slab: 16-bit values, a word is a pair of them."""
            lane, plane = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> PLANE_SHIFT)
            w_at = uint32(slab + (cuda.threadIdx.x >> 5) * WARP_BYTES + lane * PIECE_BYTES)
            x_at = uint32(slab + W_BYTES + (plane * 64 + lane) * PIECE_BYTES)
            for chunk in range(2):
                a0, a1, a2, a3 = ld_shared_v4(w_at + chunk * (2 * LANE_BYTES))
                b0, b1, b2, b3 = ld_shared_v4(w_at + chunk * (2 * LANE_BYTES) + LANE_BYTES)
                for j in range(width):
                    x0, x1, x2, x3 = ld_shared_v4(x_at + (j * CHUNKS + chunk) * LANE_BYTES)
                    c = 4 * j
                    d0, d1, d2, d3 = mma(a0, b0, a1, b1, x0, x1, acc[c], acc[c + 1], acc[c + 2], acc[c + 3])
                    acc[c], acc[c + 1], acc[c + 2], acc[c + 3] = mma(a2, b2, a3, b3, x2, x3, d0, d1, d2, d3)

        @inlined
        def multiply_e4m3(acc, slab):
            """Add the scaled products of this warp's part of a slab: a word is two pairs of float16."""
            lane, plane = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> PLANE_SHIFT)
            w_at = uint32(slab + (cuda.threadIdx.x >> 5) * WARP_BYTES + lane * PIECE_BYTES)
            x_at = uint32(slab + W_BYTES + (plane * 64 + lane) * PIECE_BYTES)
            scales = uint32(slab + W_BYTES + X_BYTES + plane * LINE_OF_SCALES)
            w_scale = ld_shared_f32(scales + SCALE_THREAD * 4)
            r_sums = cuda.local.array(num_sums, float32)
            for c in range(num_sums):
                r_sums[c] = float32(0.0)
            for chunk in range(2):
                a0, a1, a2, a3 = ld_shared_v4(w_at + chunk * (2 * LANE_BYTES))
                b0, b1, b2, b3 = ld_shared_v4(w_at + chunk * (2 * LANE_BYTES) + LANE_BYTES)
                a00, b00, a01, b01 = unpack(a0, b0)
                a10, b10, a11, b11 = unpack(a1, b1)
                a20, b20, a21, b21 = unpack(a2, b2)
                a30, b30, a31, b31 = unpack(a3, b3)
                for j in range(width):
                    x0, x1, x2, x3 = ld_shared_v4(x_at + (j * CHUNKS + chunk) * LANE_BYTES)
                    c = 4 * j
                    d0, d1, d2, d3 = r_sums[c], r_sums[c + 1], r_sums[c + 2], r_sums[c + 3]
                    d0, d1, d2, d3 = multiply_word(a00, b00, a01, b01, x0, d0, d1, d2, d3)
                    d0, d1, d2, d3 = multiply_word(a10, b10, a11, b11, x1, d0, d1, d2, d3)
                    d0, d1, d2, d3 = multiply_word(a20, b20, a21, b21, x2, d0, d1, d2, d3)
                    d0, d1, d2, d3 = multiply_word(a30, b30, a31, b31, x3, d0, d1, d2, d3)
                    r_sums[c], r_sums[c + 1], r_sums[c + 2], r_sums[c + 3] = d0, d1, d2, d3
            for j in range(width):
                token = j * TOKENS + (lane & 3) * 2
                first = ld_shared_f32(uint32(scales + token * 4)) * w_scale
                second = ld_shared_f32(uint32(scales + token * 4 + 4)) * w_scale
                c = 4 * j
                acc[c] += r_sums[c] * first
                acc[c + 1] += r_sums[c + 1] * second
                acc[c + 2] += r_sums[c + 2] * first
                acc[c + 3] += r_sums[c + 3] * second

        return multiply_e4m3 if SCALED else multiply_pairs

    multiply = one_of({width: make_multiply(width) for width in WIDTHS})

    @inlined
    def add_planes(acc, s_sums, width):
        """Add the sums of all planes, in order, to those of the first."""
        thread, plane = int32(cuda.threadIdx.x & (PLANE - 1)), int32(cuda.threadIdx.x >> PLANE_SHIFT)
        if plane > 0:
            for c in range(NUM_SUMS):
                if c < 4 * width:
                    s_sums[plane - 1, c, thread] = acc[c]
        cuda.syncthreads()  # why none after it: the next tile ends after the barrier of its first slab
        if plane == 0:
            for other in range(PLANES - 1):
                for c in range(NUM_SUMS):
                    if c < 4 * width:
                        acc[c] += s_sums[other, c, thread]

    @inlined
    def store(acc, y, row, rows, feature):
        """Write this thread's sums, two neighbouring features at a time, where they lie inside y."""
        lane = cuda.threadIdx.x & 31
        column = int32(feature + (cuda.threadIdx.x >> 5) * FEATURES + (lane >> 2) * 2)
        for j in range(WIDTHS[0]):
            for i in range(2):
                token = int32(j * TOKENS + (lane & 3) * 2 + i)
                if token < rows and column < y.shape[1]:
                    pair = pack_pair(acc[4 * j + i], acc[4 * j + 2 + i])
                    st_global_u32(address_of(y, (row + token, column)), pair)

    @inlined
    def block_of(slab, share, rest):
        """The block that reads a slab: the first `rest` blocks read one more than their share."""
        if slab < rest * (share + 1):
            return div_u32(slab, share + 1)
        return int32(rest + div_u32(slab - rest * (share + 1), share))

    @inlined
    def part_of(partials, slot):
        """Address of this thread's four sums of the first 8 tokens in a slot."""
        return address_of(partials, (int32(slot * (NUM_SUMS * PLANE) + cuda.threadIdx.x * 4),))

    @inlined
    def leave(acc, partials, slot, width):
        """Write this thread's sums to a slot."""
        part = part_of(partials, slot)
        for j in range(WIDTHS[0]):
            if j < width:
                c = 4 * j
                st_global_v4_f32(int64(part + j * PART_BYTES), acc[c], acc[c + 1], acc[c + 2], acc[c + 3])

    def make_collect(width):
        part = min(width, 4)  # of the tokens, times 8, that are added at a time: for want of registers
        batch = 4 // part  # blocks whose sums are read at a time
        num_sums = 4 * part

        @inlined
        def collect(acc, partials, first_block, last_block):
            """Set acc to the sum of a tile's parts, in the order of the blocks, which is that of k."""
            r_parts = cuda.local.array(16, float32)
            for first_j in range(0, width, part):
                for c in range(num_sums):
                    acc[4 * first_j + c] = float32(0.0)
                for block in range(first_block, last_block + 1, batch):
                    for i in range(batch):
                        slot = 2 * (block + i) + (1 if block + i == first_block else 0)
                        at = int64(part_of(partials, slot) + first_j * PART_BYTES)
                        for j in range(part):
                            c = i * num_sums + 4 * j
                            r_parts[c], r_parts[c + 1], r_parts[c + 2], r_parts[c + 3] = ld_global_v4_f32(
                                int64(at + j * PART_BYTES), block + i <= last_block
                            )
                    for i in range(batch):
                        for c in range(num_sums):
                            acc[4 * first_j + c] += r_parts[i * num_sums + c]

        return collect

    collect = one_of({width: make_collect(width) for width in WIDTHS})

    @inlined
    def hand_in(acc, partials, counters, s_done, first_block, last_block, num_done, num_k, width):
        """Leave this block's part of a tile's sums for others; returns whether all parts are there.

        If they are, acc holds their sum, added in the order of k whoever came last.
        """
        # A block shares at most two tiles: one that began in another block, and one that it begins.
        if cuda.threadIdx.x < PLANE:
            leave(acc, partials, 2 * cuda.blockIdx.x + (1 if cuda.blockIdx.x == first_block else 0), width)
        fence_acq_rel_gpu()
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            s_done[0] = cuda.atomic.add(counters, first_block, num_done) + num_done
            fence_acq_rel_gpu()
        cuda.syncthreads()
        if s_done[0] < num_k:
            return False
        if cuda.threadIdx.x < PLANE:
            collect(width, acc, partials, first_block, last_block)
        if cuda.threadIdx.x == 0:
            cuda.atomic.exch(counters, first_block, 0)  # why: the next launch counts anew
        return True

    @inlined
    def next_stage(stage, ring):
        return uint32(stage + STAGE_BYTES) if stage < uint32(ring + (STAGES - 1) * STAGE_BYTES) else ring

    @whole_kernel(THREADS, config.blocks_per_sm)
    def decode_kernel(x, w, x_scales, w_scales, offsets, y, partials, counters):
        s_done = cuda.shared.array(1, int32)
        s_sums = cuda.shared.array(SUMS_SHAPE, float32)
        s_dynamic = cuda.shared.array(0, uint8)
        ring = uint32((shared_address(s_dynamic) + LINE_BYTES - 1) & -LINE_BYTES)
        acc = cuda.local.array(NUM_SUMS, float32)
        policy = evict_first()
        total_tokens, row_bytes = int32(x.shape[0]), int32(x.shape[1])
        num_k = int32((row_bytes + SLAB_BYTES - 1) // SLAB_BYTES)
        tiles_n = int32((w.shape[1] + BN - 1) // BN)

        num_slabs = int32(count_slices(offsets, total_tokens) * tiles_n * num_k)
        num_blocks = int32(min(int32(cuda.gridDim.x), int32(max(div_u32(num_slabs, LEAST_SLABS), 1))))
        block = int32(cuda.blockIdx.x)
        share = div_u32(num_slabs, num_blocks)
        rest = int32(num_slabs - share * num_blocks)
        first = int32(block * share + min(block, rest))
        left = int32(share + (1 if block < rest else 0)) if block < num_blocks else int32(0)
        last = int32(first + left)
        # Begin with the tile that goes on in the next block, if there is one, and come to `first` after
        # `last`: shared tiles are added up while everybody reads, not at the end, where nothing hides it.
        begin = int32(div_u32(last, num_k) * num_k)
        if begin < first or begin == last:
            begin = first

        # The slab to be copied next, and where its pieces are; it is some stages ahead of the other.
        coming, target = begin, ring
        bytes_left = width = tokens = features = int32(0)
        x_at = w_at = scale_at = int64(0)
        is_scale = False
        # The slab to be multiplied next, and its tile; whether it is the first of the tile here.
        slab, stage, fresh = begin, ring, True
        my_k = my_width = first_k = int32(0)
        step = int32(1 - STAGES)
        while step < left:
            if step >= 0:
                wait_for_slab()
                cuda.syncthreads()  # why: others' copies have landed, and all have left the last slab
            if step < int32(left - (STAGES - 1)):
                if bytes_left <= 0 or coming == first:
                    k, group, row, rows, feature = locate(coming, num_k, tiles_n, offsets, total_tokens)
                    width = width_of(rows)
                    bytes_left = int32(row_bytes - k * SLAB_BYTES)
                    x_at, token = aim_at_x(x, row, k)
                    tokens = int32(rows - token)
                    w_at, features = aim_at_w(w, group, feature, k)
                    if SCALED:
                        scale_at, is_scale = aim_at_scales(x_scales, w_scales, group, row, rows, feature, k)
                start_w(w_at, features, bytes_left, row_bytes, policy, target)
                start_x(x_at, tokens, width, bytes_left, row_bytes, target)
                if SCALED:
                    start_scales(scale_at, is_scale, bytes_left, target)
                    scale_at = int64(scale_at + 4 * PLANES)
                w_at, x_at = int64(w_at + SLAB_BYTES), int64(x_at + SLAB_BYTES)
                bytes_left = int32(bytes_left - SLAB_BYTES)
                coming = int32(coming + 1)
                if coming == last:
                    coming = first
                target = next_stage(target, ring)
            cp_async_commit()  # why also when nothing was started: the wait counts groups, empty ones too
            if step >= 0:
                if fresh:
                    my_k, _, _, rows, _ = locate(slab, num_k, tiles_n, offsets, total_tokens)
                    my_width = width_of(rows)
                    first_k = my_k
                    for c in range(NUM_SUMS):
                        acc[c] = float32(0.0)
                multiply(my_width, acc, stage)
                stage = next_stage(stage, ring)
                my_k = int32(my_k + 1)
                slab = int32(slab + 1)
                fresh = my_k == num_k or slab == last
                if fresh:
                    if PLANES > 1:
                        add_planes(acc, s_sums, my_width)
                    complete = first_k == 0 and my_k == num_k
                    if not complete:
                        start = int32(slab - my_k)  # of the tile
                        first_block = block_of(start, share, rest)
                        last_block = block_of(start + num_k - 1, share, rest)
                        complete = hand_in(
                            acc, partials, counters, s_done, first_block, last_block,
                            int32(my_k - first_k), num_k, my_width,
                        )  # fmt: skip
                    if complete and cuda.threadIdx.x < PLANE:
                        _, _, row, rows, feature = locate(
                            int32(slab - 1), num_k, tiles_n, offsets, total_tokens
                        )
                        store(acc, y, row, rows, feature)
                    if slab == last:
                        slab = first
            step = int32(step + 1)

    return decode_kernel


def bind(
    problem: GroupedProblem, config: Config, x: Any, w: Any, offsets: Any, y: Any, scales: Any = None
) -> Launch | None:
    """Prepare the launch for arrays that exist; None if there is nothing to do.

    Args:
        problem: its N, K, num_groups and total_tokens; how tokens are routed is read from offsets, by
            every launch anew.
        config: compile-time constants that fit the problem, its dtype among them.
        x: device array [total_tokens, K].
        w: device array [num_groups, N, K].
        offsets: int32 device array [num_groups + 1].
        y: device array [total_tokens, N], of 16 bits.
        scales: for float8_e4m3fn, float32 device arrays: of x [total_tokens, ceil(K / 128)], and of w
            [num_groups, ceil(N / 128), ceil(K / 128)].
    """
    most_slabs = config.most_slabs(problem)
    if not most_slabs:
        return None
    if scales is None:
        scales = (to_device(np.zeros(shape, np.float32)) for shape in ((1, 1), (1, 1, 1)))
    most_blocks = device.choose().num_sms * config.blocks_per_sm
    num_blocks = min(most_blocks, max(most_slabs // config.least_slabs, 1))
    partials = cuda.device_array(2 * num_blocks * 4 * config.widths[0] * config.plane_threads, np.float32)
    counters = to_device(np.zeros(num_blocks, np.int32))
    require_aligned(PIECE_BYTES, x=x, w=w)
    require_aligned(4, y=y)
    return Launch(
        make_kernel(config),
        num_blocks,
        config.num_threads,
        (x.view(np.uint8), w.view(np.uint8), *scales, offsets, y.view(np.uint16), partials, counters),
        shared_bytes=config.shared_bytes,
    )


def prepare(
    problem: GroupedProblem, config: Config | None = None, inputs: Inputs | QuantizedInputs | None = None
) -> Prepared:
    """Prepare the only launch.

    Args:
        problem: what is computed; bfloat16, float16 or float8_e4m3fn, K a multiple of 16 bytes, N even.
        config: compile-time constants; None takes what `choose_config` says, or `SIM_CONFIG`.  The dtype is
            the problem's.
        inputs: host or device arrays, for float8_e4m3fn with scales; None draws random ones.

    Raises:
        ConfigError: the constants do not fit together.
        ProblemError: the step does not take this dtype, N or K, or these blocks of scales.
        LaunchError: the GPU has less shared memory than the configuration wants.
    """
    if config:
        config = replace(config, dtype=problem.dtype)
    on_gpu = choose_config(problem, device.choose().shared_bytes_per_block)
    in_simulator = replace(SIM_CONFIG, dtype=problem.dtype)
    x: Any
    w: Any
    scales = None
    if problem.dtype == FP8:
        config, x, w = begin_quantized(problem, inputs, config, on_gpu, in_simulator)  # type: ignore[arg-type]
        if w.block != WEIGHT_BLOCK:
            raise ProblemError("this step takes a scale for each 128 of K, not for whole rows: use tiled_fp8")
        scales = x.scales, w.scales
        x, w = x.values, w.values
    else:
        config, x, w = begin(problem, inputs, config, on_gpu, in_simulator)  # type: ignore[arg-type]
    output, y = guarded_output(problem)
    gemm = bind(problem, config, x, w, to_device(problem.offsets), y, scales)
    tiles_n = ceil_div(problem.N, config.BN)
    tokens = sum(ceil_div(count, TOKENS) * TOKENS for count in problem.counts)
    work = Work(
        launches=1 if gemm else 0,
        blocks=gemm.num_blocks if gemm else 0,
        tiles=sum(ceil_div(count, config.tokens) for count in problem.counts) * tiles_n,
        flops=2 * tokens * tiles_n * config.BN * problem.K,
    )
    parts = {"gemm": gemm} if gemm else {}
    tile = config.tokens, config.BN
    return Prepared(problem, config, parts, output, work, tile, (x, w, scales), accumulator_bits=MMA_BITS)
