"""Anything that can be timed and judged: a step of the ladder, or another library's GEMM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gemm_lessons.compare import Comparison, check_output
from gemm_lessons.launch import Graph, Prepared, launch_parts
from gemm_lessons.measure.timing import Call, Gpu
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.quantize import QuantizedInputs


@dataclass
class Run:
    """One problem on one input set, ready to be called again and again.

    Attributes:
        problem: what is computed.
        eager: enqueues the work, launch by launch.
        replay: enqueues the same work as a CUDA graph; eager again where it cannot be captured.
        poison: makes every output unusable, so that old results cannot pass.
        result: waits, and returns y between guard rows on the host, as `check_output` takes it.
        tile: rows and columns of an output tile.
        work: counted work, for the table.
        parts: name -> what can be timed by itself.
        note: what a reader of the time must know.
        compare: judges what stands in the output, where that is not y; None for `check_output`.
    """

    problem: GroupedProblem
    eager: Call
    replay: Call
    poison: Callable[[], None]
    result: Callable[[], Any]
    tile: tuple[int, int] = (16, 16)
    work: dict[str, int] = field(default_factory=dict)
    parts: dict[str, Call] = field(default_factory=dict)
    note: str = ""
    compare: Callable[[Inputs | QuantizedInputs], Comparison] | None = None

    def judge(self, gpu: Gpu, inputs: Inputs | QuantizedInputs) -> Comparison:
        """Poison the output, replay once, and compare with NumPy.

        Why after timing: a kernel that only worked the first time, because a counter was not reset,
        would look fast and be wrong.
        """
        self.poison()
        self.replay(gpu.stream)
        gpu.wait()
        if self.compare:
            return self.compare(inputs)
        return check_output(self.result(), self.problem, inputs, tile=self.tile)


def run_of(prepared: Prepared) -> Run:
    """Make a prepared step ready to be timed; records its CUDA graph."""
    return Run(
        problem=prepared.problem,
        eager=partial(launch_parts, prepared),
        replay=Graph(prepared),
        poison=prepared.poison,
        result=prepared.result,
        tile=prepared.tile,
        work=vars(prepared.work).copy(),
        parts=dict(prepared.parts) if len(prepared.parts) > 1 else {},
        compare=prepared.judge,
    )
