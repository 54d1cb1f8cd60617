"""Every step on the cases that are the subject: ragged ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gemm_lessons.launch import Work
from gemm_lessons.problem import DTYPES, GroupedProblem, Inputs, ProblemError
from gemm_lessons.quantize import draw_inputs, with_unit_scales
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps import FP8_STEPS, STEPS, TENSOR_STEPS
from gemm_lessons.steps._host import ConfigError
from gemm_lessons.workloads import WORKLOADS

MOST_FLOPS = 2e11  # a second or so for the slowest step


@dataclass(frozen=True)
class Outcome:
    """What a step did with one problem: right, refused with a sentence, or wrong with a complaint."""

    right: bool
    refusal: str = ""
    complaint: str = ""


def ragged_problems(*, on_gpu: bool, small: bool = False) -> list[GroupedProblem]:
    """Cases that catch kernels: empty experts, counts around a tile's edge, N and K that no tile divides.

    Args:
        on_gpu: tiles have a GPU's size, and named workloads are run at full size; else both are small
            enough for the simulator.
        small: leave out the named workloads, for tools that slow a GPU down.
    """
    tile = 128 if on_gpu else 16
    cases = [
        GroupedProblem((tile - 1, tile, tile + 1, 1, 0, 2), tile + 1, 36, name="tile edges"),
        GroupedProblem((0, tile + 3, 0, 0, 5), tile - 3, 29, name="empty first and middle, odd N and K"),
        GroupedProblem((5, 0), tile, 32, name="empty last"),
        GroupedProblem((1,) * 40, tile + 1, 20, name="single tokens"),
        GroupedProblem((3,), 1, 1, name="one by one"),
        GroupedProblem((0, 0), 8, 8, name="no tokens"),
    ]
    if on_gpu:  # why: a block then takes several tiles, and a pipeline uses its stages again, narrow or wide
        cases.append(GroupedProblem((3,) * 40, 1024, 520, name="more tiles than SMs, many slabs of K"))
        cases.append(GroupedProblem((66,) * 17, 1024, 520, name="the same with wide tiles"))
    if small:
        return cases
    named = [workload.at(full_size=on_gpu) for workload in WORKLOADS.values()]
    distinct = {problem.counts: problem for problem in reversed(named) if problem.useful_flops < MOST_FLOPS}
    return [*cases, *reversed(distinct.values())]


def suited(name: str, problem: GroupedProblem) -> GroupedProblem:
    """The same case for a step of another dtype; for tensor cores, with rows of a multiple of 16 bytes."""
    if name == "tiled_fp8":
        return replace(problem, dtype="float8_e4m3fn")
    if name not in TENSOR_STEPS | FP8_STEPS:
        return problem
    N = ceil_div(problem.N, 8) * 8
    if name in FP8_STEPS:
        return replace(problem, N=N, K=ceil_div(problem.K, 16) * 16, dtype="float8_e4m3fn")
    return replace(problem, N=N, K=ceil_div(problem.K, 8) * 8, dtype="bfloat16")


def check_step(step: Any, problem: GroupedProblem) -> Outcome:
    """Run one step on one problem and compare it with NumPy."""
    inputs: Any = draw_inputs(problem)
    try:
        prepared = step.prepare(problem, inputs=inputs)
    except (ProblemError, ConfigError) as error:
        return Outcome(False, refusal=str(error))
    verdict = prepared.check(inputs)
    return Outcome(verdict.ok, complaint="" if verdict.ok else str(verdict))


def counted_works(problem: GroupedProblem, steps: Mapping[str, Any] = STEPS) -> dict[str, Work]:
    """The counted work of the steps that take this problem, with the tiles that a GPU would use."""
    shapes = (problem.total_tokens, problem.K), (problem.num_groups, problem.N, problem.K)
    zeros = Inputs(*(np.zeros(shape, DTYPES[problem.dtype]) for shape in shapes))
    inputs: Any = with_unit_scales(zeros) if problem.dtype == "float8_e4m3fn" else zeros
    works = {}
    for name, step in steps.items():
        try:
            works[name] = step.prepare(problem, step.CONFIG, inputs).work
        except (ProblemError, ConfigError):
            continue
    return works
