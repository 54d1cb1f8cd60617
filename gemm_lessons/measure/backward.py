"""Time the backward pass's grouped GEMMs next to the forward pass's, and each next to its padded twin.

python -m gemm_lessons.measure.backward            into `results/DEVICE-backward.json`
python -m gemm_lessons.measure.backward --quick    the same with few samples, on one set of inputs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemm_lessons import device

device.choose()

from gemm_lessons.measure.ladder import Bench, new_record  # noqa: E402
from gemm_lessons.measure.results import FOLDER, path_for, recorded  # noqa: E402
from gemm_lessons.measure.roofline import Peaks, peaks  # noqa: E402
from gemm_lessons.measure.timing import CudaGpu, Rules  # noqa: E402
from gemm_lessons.moe import dgrad, wgrad  # noqa: E402
from gemm_lessons.problem import GroupedProblem  # noqa: E402
from gemm_lessons.steps import tiled  # noqa: E402
from gemm_lessons.workloads import WORKLOADS as ALL_WORKLOADS  # noqa: E402

RESULTS = "backward"  # in the file's name, where the ladder has a dtype
WORKLOADS = ("S", "S-x16")


@dataclass(frozen=True)
class ByNumber:
    """wgrad with the experts in the order of their numbers, as a step of its own."""

    CONFIG: Any = wgrad.CONFIG
    SIM_CONFIG: Any = wgrad.SIM_CONFIG

    def prepare(self, problem: GroupedProblem, config: Any = None, inputs: Any = None) -> Any:
        """As `wgrad.prepare`."""
        return wgrad.prepare(problem, config, inputs, longest_first=False)


GRADIENTS: Mapping[str, Any] = {"dgrad": dgrad, "wgrad": wgrad, "wgrad by number": ByNumber()}
STEPS: Mapping[str, Any] = {"tiled": tiled, **GRADIENTS}


def known_peaks(gpu: CudaGpu) -> Peaks:
    """This device's limits as they are recorded with the ladder; measured now if they are not."""
    record = recorded("float32")
    if record is None or record.machine["device"] != device.choose().name:
        return peaks(gpu)
    return Peaks(**record.peaks)


def main() -> int:
    """Measure and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gemm_lessons.measure.backward")
    parser.add_argument("--quick", action="store_true", help="few samples, one set of inputs")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results file")
    options = parser.parse_args()
    if not device.choose().is_gpu:
        print("NOT RUN: nothing can be timed without a GPU")
        return 3
    gpu = CudaGpu()
    limits, rules = known_peaks(gpu), Rules.quick() if options.quick else Rules()
    bench = Bench(
        gpu,
        limits,
        new_record("float32", rules, limits),
        path_for(device.choose().name, RESULTS, options.out),
        rules,
        announce=lambda one: print(one.workload, one.name, one.kind, one.status, one.median_us, flush=True),
        most_sets=1 if options.quick else 3,
    )
    for workload in WORKLOADS:
        bench.ladder(ALL_WORKLOADS[workload].problem, STEPS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
