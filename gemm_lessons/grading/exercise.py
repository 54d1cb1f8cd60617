"""What an exercise is to the grader: how a submission is called, and what the right answer is.

A grader file in `exercises/` derives one of two classes and declares checks on it; everything that is the
same in all exercises lives here and in `student`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gemm_lessons.grading.cases import Case
from gemm_lessons.grading.judge import Wanted

ALL_ARRAYS = "global memory"  # in a budget: reads of all arrays together
Array = np.ndarray[Any, Any]
Inputs = dict[str, Any]


class Exercise(ABC):
    """Common to all exercises.

    Attributes:
        name: of the submission's file, without its suffix.
        numpy_allowed: host code may compute with NumPy.
        seconds: time limit of one job.
        signatures: argument types of the kernels, for the compiler; none if there is no kernel.
        instructions: names that a submission may import from the modules of `rules.INSTRUCTIONS`.
        compute_capability: of the oldest GPU that has these instructions.
    """

    name: str
    numpy_allowed: bool = False
    seconds: float = 3.0
    signatures: Mapping[str, tuple[str, ...]] = {}
    instructions: frozenset[str] = frozenset()
    compute_capability: tuple[int, int] = (0, 0)

    @abstractmethod
    def cases(self, seed: int) -> list[Case]:
        """The cases on which a submission is diagnosed."""


class GroupedExercise(Exercise):
    """A submission that fills an output with the grader's help: a kernel, or a launcher of kernels.

    Attributes:
        tile: rows and columns of a block, to name tiles.
        output: the name of what is filled, in messages.
        output_dtype: of what is filled; bfloat16 travels as uint16, bit for bit.
    """

    tile: tuple[int, int] = (4, 16)
    output: str = "y"
    output_dtype: str = "float32"

    def inputs(self, case: Case, rng: np.random.Generator) -> Inputs:
        """Random inputs: x and, by default, weights w [num_experts, N, K]."""
        return {
            "x": rng.standard_normal((case.total, case.K), dtype=np.float32),
            "w": rng.standard_normal((len(case.counts), case.N, case.K), dtype=np.float32),
        }

    def output_case(self, case: Case) -> Case:
        """The output's shape, as a case: rows of each expert as its counts, columns as its N."""
        return case

    @abstractmethod
    def want(self, case: Case, inputs: Inputs) -> Wanted:
        """The right answer."""

    def alternatives(self, case: Case, inputs: Inputs) -> dict[str, Array]:
        """What common mistakes would compute instead; NaN in what they would not write.

        Keys are those of `misconceptions.toml`, maybe with a variant: "wrong-experts-weights (next)".
        """
        return {}

    @abstractmethod
    def job(self, case: Case, inputs: Inputs, output: dict[str, Any]) -> dict[str, Any]:
        """How the submission is called; see `jobs`."""

    def num_launches(self, case: Case) -> int:
        """Launches that a right submission makes."""
        return 1

    def most_reads(self, case: Case) -> dict[str, int]:
        """Budget: reads of global memory by array, for a right submission.

        A device function that reads several arrays counts under one name: then only `ALL_ARRAYS` is certain.
        """
        return {}

    def in_its_words(self, finding: str) -> str:
        """A finding of the simulator, with the exercise's own names in it."""
        return finding

    def executions(self, case: Case) -> dict[str, tuple[int, int]]:
        """How often warps execute an instruction in a right submission: at least, and at most."""
        return {}


@dataclass(frozen=True)
class Question:
    """One host function: what it is asked, what it should say, and what mistakes say.

    Attributes:
        function: its name.
        ask: arguments for a case.
        want: the right answer for these arguments.
        mistakes: what common mistakes answer, by name.
        tells: what a wrong answer of the right shape shows, by the mistake's name: (got, *arguments) -> bool.
        exact_type: the answer must have this type, if given.
        more: cases for this function alone.
    """

    function: str
    ask: Callable[[Case, np.random.Generator], tuple[Any, ...]]
    want: Callable[..., Any]
    mistakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    tells: Mapping[str, Callable[..., bool]] = field(default_factory=dict)
    exact_type: type | None = None
    more: tuple[Case, ...] = ()


class HostExercise(Exercise):
    """A submission of host functions, called one by one.

    Attributes:
        questions: one for each function.
    """

    numpy_allowed = True
    questions: Sequence[Question] = ()

    def question(self, function: str) -> Question:
        """The question about a function."""
        return next(question for question in self.questions if question.function == function)
