"""Padding: every expert made as long as the longest, one batched launch.

Picture:
    tokens, sorted by expert       padded to the longest         one grid, blockIdx.z = expert
      #### expert 0                  ####                          ####  x w[0]^T
      ## expert 1          pack      ##..              gemm        ##..  x w[1]^T        unpack
      ### expert 2         --->      ###.              --->        ###.  x w[2]^T        --->   y
                                        ^ zeros that are multiplied all the same

What changed: nothing, this is where the ladder starts, and what most frameworks did for years.

Why it should help: a batched GEMM needs one shape for all experts, and this gives it one. One launch,
no search, every thread knows its expert from its block index.

When it will not: whenever counts differ. With one expert at 200 tokens and an average of 125, three of
eight multiply-adds are spent on zeros, and packing moves every token twice more.

What to measure: pack, gemm and unpack apart and together; useful FLOPs over padded FLOPs. With equal
counts this step is hard to beat by the next ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from numba import cuda, float32

from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps._host import begin, require_block_size, require_float32

launch = launch_parts

SIGNATURE = "void(float32[:, :, ::1], float32[:, :, ::1], float32[:, :, ::1])"
PACK_SIGNATURE = "void(float32[:, ::1], int32[::1], float32[:, :, ::1])"
UNPACK_SIGNATURE = "void(float32[:, :, ::1], int32[::1], float32[:, ::1])"


@dataclass(frozen=True)
class Config:
    """Threads of a block: one for each output of a BM x BN tile."""

    BM: int = 8
    BN: int = 32

    def validate(self, problem: GroupedProblem) -> None:
        """Raise what makes this step impossible: a wrong dtype or block size."""
        require_float32(problem)
        require_block_size(self.BM * self.BN)


CONFIG = Config()
SIM_CONFIG = Config(BM=4, BN=8)


@cuda.jit
def pack_rows(x, offsets, x_padded):
    """Copy each expert's rows to its own slab of x_padded [num_groups, max_tokens, K]; zeros below them."""
    group = cuda.blockIdx.z
    row = cuda.blockIdx.y
    first_row = offsets[group]
    has_token = row < offsets[group + 1] - first_row
    for k in range(cuda.grid(1), x_padded.shape[2], cuda.gridsize(1)):
        x_padded[group, row, k] = x[first_row + row, k] if has_token else float32(0.0)


@cuda.jit
def unpack_rows(y_padded, offsets, y):
    """Copy each expert's rows out of its slab of y_padded, and leave the padding behind."""
    group = cuda.blockIdx.z
    row = cuda.blockIdx.y
    first_row = offsets[group]
    if row < offsets[group + 1] - first_row:
        for n in range(cuda.grid(1), y.shape[1], cuda.gridsize(1)):
            y[first_row + row, n] = y_padded[group, row, n]


@cache
def make_kernel(config: Config) -> Any:
    """The batched kernel: one thread per output, padding included."""

    @cuda.jit
    def padded_kernel(x_padded, w, y_padded):
        col, row, group = cuda.grid(3)
        if row < x_padded.shape[1] and col < w.shape[1]:
            acc = float32(0.0)
            for k in range(w.shape[2]):
                acc += x_padded[group, row, k] * w[group, col, k]
            y_padded[group, row, col] = acc

    return padded_kernel


def copy_launch(kernel: Any, config: Config, extent: int, slab: Any, arguments: tuple[Any, ...]) -> Launch:
    """A launch of `pack_rows` or `unpack_rows`: one block row per row of the slab."""
    threads = config.BM * config.BN
    grid = (ceil_div(extent, threads), slab.shape[1], slab.shape[0])
    return Launch(kernel, grid, threads, arguments)


def prepare(problem: GroupedProblem, config: Config | None = None, inputs: Inputs | None = None) -> Prepared:
    """Allocate the padded slabs and prepare pack, gemm and unpack.

    Raises:
        ProblemError: wrong dtype or inputs.
        ConfigError: wrong block size.
    """
    config, x, w = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    output, y = guarded_output(problem)
    groups, longest = problem.num_groups, problem.max_tokens
    if not longest:
        return Prepared(problem, config, {}, output, Work(0, 0, 0, 0))
    offsets = cuda.to_device(problem.offsets)
    x_padded = cuda.device_array((groups, longest, problem.K), x.dtype)
    y_padded = cuda.device_array((groups, longest, problem.N), x.dtype)
    grid = (ceil_div(problem.N, config.BN), ceil_div(longest, config.BM), groups)
    parts = {
        "pack": copy_launch(pack_rows, config, problem.K, x_padded, (x, offsets, x_padded)),
        "gemm": Launch(make_kernel(config), grid, (config.BN, config.BM), (x_padded, w, y_padded)),
        "unpack": copy_launch(unpack_rows, config, problem.N, y_padded, (y_padded, offsets, y)),
    }
    moved = x.dtype.itemsize * (
        (problem.total_tokens + groups * longest) * problem.K + 2 * problem.total_tokens * problem.N
    )
    work = Work(
        launches=3,
        blocks=sum(part.num_blocks for part in parts.values()),
        tiles=parts["gemm"].num_blocks,
        flops=problem.padded_flops,
        packed_bytes=moved,
    )
    return Prepared(problem, config, parts, output, work, tile=(config.BM, config.BN))
