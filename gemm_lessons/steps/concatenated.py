"""One launch for all experts: tokens concatenated, each row finds its expert in the offsets.

Picture:
    row of x      0  1  2  3 | 4  5 | 6  7  8        offsets = [0, 4, 6, 6, 9]
    expert           0       |  1   |    3                            ^  ^ expert 2 is empty
    row 5: offsets[1] = 4 <= 5 < 6 = offsets[2]  ->  expert 1

What changed: one grid covers all rows of all experts. A thread no longer gets its expert's views from the
host: it searches the offsets for the expert that owns its row.

Why it should help: one launch instead of one per expert, and one grid that is large enough to fill the
GPU however small each expert is.

When it will not: few large experts, where launches were cheap already and the search is pure extra work.
A block at a border serves two experts and reads two weight matrices.

What to measure: linear against binary search with 8 and with 256 experts; launch overhead, now that
there is one launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from numba import cuda, float32

from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.schedule import ceil_div, find_group, find_group_linear
from gemm_lessons.steps._host import ConfigError, begin, require_block_size, require_float32

launch = launch_parts

SIGNATURE = "void(float32[:, ::1], float32[:, :, ::1], int32[::1], float32[:, ::1])"

SEARCHES = {"linear": find_group_linear, "binary": find_group}


@dataclass(frozen=True)
class Config:
    """Threads of a block: one for each output of a BM x BN tile; and how a row finds its expert."""

    BM: int = 8
    BN: int = 32
    search: str = "binary"

    def validate(self, problem: GroupedProblem) -> None:
        """Raise what makes this step impossible: a wrong dtype, block size or search."""
        require_float32(problem)
        require_block_size(self.BM * self.BN)
        if self.search not in SEARCHES:
            raise ConfigError(f"search is {self.search!r}: use one of {', '.join(SEARCHES)}")


CONFIG = Config()
SIM_CONFIG = Config(BM=4, BN=8)


@cache
def make_kernel(config: Config) -> Any:
    """The kernel for all experts: x [total_tokens, K], w [num_groups, N, K], y [total_tokens, N]."""
    search = SEARCHES[config.search]

    @cuda.jit
    def concatenated_kernel(x, w, offsets, y):
        col, row = cuda.grid(2)
        if row < x.shape[0] and col < w.shape[1]:
            group = search(offsets, row)
            acc = float32(0.0)
            for k in range(w.shape[2]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc

    return concatenated_kernel


def prepare(problem: GroupedProblem, config: Config | None = None, inputs: Inputs | None = None) -> Prepared:
    """Put the offsets on the device and prepare the one launch.

    Raises:
        ProblemError: wrong dtype or inputs.
        ConfigError: wrong block size or search.
    """
    config, x, w = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    output, y = guarded_output(problem)
    if not problem.total_tokens:
        return Prepared(problem, config, {}, output, Work(0, 0, 0, 0))
    grid = (ceil_div(problem.N, config.BN), ceil_div(problem.total_tokens, config.BM))
    arguments = (x, w, cuda.to_device(problem.offsets), y)
    gemm = Launch(make_kernel(config), grid, (config.BN, config.BM), arguments)
    work = Work(1, gemm.num_blocks, gemm.num_blocks, problem.useful_flops)
    return Prepared(problem, config, {"gemm": gemm}, output, work, tile=(config.BM, config.BN))
