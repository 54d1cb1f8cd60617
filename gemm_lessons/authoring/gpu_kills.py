"""Wrong solutions on a real GPU: those whose outputs are wrong on any device must be rejected there, too.

What only the simulator can see, such as races, is not asked of a GPU.  On a machine with one,
`python -m gemm_lessons.authoring.gpu_kills` grades them all and writes `docs/gpu_kills.json`, which
the table of kills shows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gemm_lessons import device
from gemm_lessons.authoring.mutants import GPU_KILLS, Mutant, mutants, status
from gemm_lessons.grading import api
from gemm_lessons.grading.runner import Runner
from gemm_lessons.grading.student import Student
from gemm_lessons.measure.machine import machine
from gemm_lessons.measure.results import now

GPU_CHECK = "test_on_gpu"
SHOWN_BY = ("test_one_expert", "test_experts", "test_borders", "test_ragged")  # outputs alone decide these


def kernels() -> list[str]:
    """The exercises with a check on the GPU."""
    return [
        name
        for name, path in api.graders().items()
        if f"def {GPU_CHECK}(" in path.read_text(encoding="utf-8")
    ]


def shown() -> Iterator[Mutant]:
    """The wrong solutions that a GPU shows to be wrong."""
    asked = kernels()
    return (each for each in mutants() if each.exercise in asked and each.caught_by in SHOWN_BY)


def rejected(mutant: Mutant, simulator: Runner, gpu: Runner) -> bool:
    """Whether the check on the GPU fails."""
    grader = api.load_grader(api.graders()[mutant.exercise])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{mutant.exercise}.py"
        path.write_text(mutant.source, encoding="utf-8")
        student = Student(grader.exercise, path, simulator, 7, compile_it=False, gpu=gpu)
        return status(api.grade_student(student, grader, GPU_CHECK), GPU_CHECK) == "failed"


def main() -> int:
    """Grade and write; returns the exit code."""
    if not device.choose().is_gpu:
        print(f"NOT RUN: this needs a GPU, and {device.choose().reason}")
        return 2
    simulator, gpu = Runner("sim"), Runner("gpu")
    exercises: dict[str, dict[str, list[str]]] = {}
    try:
        for mutant in shown():
            verdict = "rejected" if rejected(mutant, simulator, gpu) else "survived"
            found = exercises.setdefault(mutant.exercise, {"rejected": [], "survived": []})
            found[verdict].append(mutant.name)
    finally:
        simulator.close()
        gpu.close()
    about = machine()
    report = {"device": about["device"], "date": now(), "commit": about["commit"], "exercises": exercises}
    GPU_KILLS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {GPU_KILLS}")
    return int(any(found["survived"] for found in exercises.values()))


if __name__ == "__main__":
    sys.exit(main())
