"""One launch per non-empty expert, one thread per output.

Picture:
              x[o[g]:o[g+1]]       w[g]           y[o[g]:o[g+1]]
    expert 0     ########     x   ########^T  ->      ######         launch 0
    expert 1     ###          x   ########^T  ->      ##             launch 1
    expert 2     (empty)                                             no launch

What changed: no padding. The host loops over the experts and launches a plain GEMM for each, on views of
exactly its own rows.

Why it should help: work on padding is gone, and so is packing: total_tokens rows instead of
num_groups * max_tokens.

When it will not: many small experts. Every launch costs host time, and a grid for a few rows leaves most
SMs idle; the experts run one after the other. With equal counts `padded` does the same work in one
launch.

What to measure: launch overhead beside kernel time, on `S` and on `single-tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from numba import cuda, float32

from gemm_lessons.launch import Launch, Prepared, Stream, Work, guarded_output, launch_parts
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps._host import begin, require_block_size, require_float32

launch = launch_parts

SIGNATURE = "void(float32[:, ::1], float32[:, ::1], float32[:, ::1])"


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


@cache
def make_kernel(config: Config) -> Any:
    """The kernel for one expert: x [count, K], w [N, K], y [count, N]."""

    @cuda.jit
    def naive_kernel(x, w, y):
        col, row = cuda.grid(2)
        if row < x.shape[0] and col < w.shape[0]:
            acc = float32(0.0)
            for k in range(w.shape[1]):
                acc += x[row, k] * w[col, k]
            y[row, col] = acc

    return naive_kernel


def prepare(problem: GroupedProblem, config: Config | None = None, inputs: Inputs | None = None) -> Prepared:
    """Prepare one launch for each expert that has tokens.

    Raises:
        ProblemError: wrong dtype or inputs.
        ConfigError: wrong block size.
    """
    config, x, w = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    output, y = guarded_output(problem)
    kernel = make_kernel(config)
    launches = []
    for group, count in enumerate(problem.counts):
        if count == 0:
            continue  # why: a grid of no blocks is an error, not a launch that does nothing
        rows = slice(int(problem.offsets[group]), int(problem.offsets[group + 1]))
        grid = (ceil_div(problem.N, config.BN), ceil_div(count, config.BM))
        launches.append(Launch(kernel, grid, (config.BN, config.BM), (x[rows], w[group], y[rows])))

    def launch_experts(stream: Stream) -> None:
        for launch_expert in launches:
            launch_expert(stream)

    blocks = sum(launch_expert.num_blocks for launch_expert in launches)
    work = Work(len(launches), blocks, blocks, problem.useful_flops)
    return Prepared(problem, config, {"gemm": launch_experts}, output, work, tile=(config.BM, config.BN))
