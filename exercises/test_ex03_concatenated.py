"""Grader of exercise 03.  `Concatenated.want` is the oracle."""

import math

import numpy as np

from gemm_lessons.compare import NUM_GUARD_ROWS
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.judge import guarded_output, wanted


class Concatenated(GroupedExercise):
    """One launch for all experts, two rows per thread."""

    name = "ex03_concatenated"
    tile = (8, 16)
    signatures = {
        "two_rows_kernel": ("void(float32[:, ::1], float32[:, :, ::1], int32[::1], float32[:, ::1])",)
    }

    def cases(self, seed):
        return [ONE, PAIRS, BORDERS, ODD, *ragged(seed, *self.tile)]

    def sums(self, case, inputs, experts=None):
        """x @ w[expert of each row].T in float64."""
        experts = case.groups if experts is None else np.clip(experts, 0, len(case.counts) - 1)
        return np.einsum(
            "rk,rnk->rn", inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)[experts]
        )

    def want(self, case, inputs):
        squares = {name: np.square(array.astype(np.float64)) for name, array in inputs.items()}
        return wanted(self.sums(case, inputs), np.sqrt(self.sums(case, squares)), case.K)

    def alternatives(self, case, inputs):
        groups, rows = case.groups, np.arange(case.total)
        x, w = inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)
        y = self.sums(case, inputs)
        inside = rows - case.problem.offsets[groups]
        as_transposed = w.reshape(len(w), case.K, case.N)[groups]
        return {
            "second-row-shares-expert": self.sums(case, inputs, groups[rows // 2 * 2]),
            "second-row-shares-expert (the other row)": self.sums(
                case, inputs, groups[np.minimum(rows // 2 * 2 + 1, case.total - 1)]
            ),
            "pair-taken-for-row": self.sums(case, inputs, groups[rows // 2]),
            "end-counted-as-inside": self.sums(case, inputs, np.searchsorted(case.ends, rows, side="left")),
            "off-by-one-expert": self.sums(case, inputs, groups + 1),
            "wrong-experts-weights": self.sums(case, inputs, groups * 0),
            "ends-taken-for-starts": self.sums(
                case, inputs, np.searchsorted(case.ends, rows, side="right") - 1
            ),
            "empty-not-skipped": self.sums(
                case, inputs, np.searchsorted(np.flatnonzero(case.counts), groups)
            ),
            "end-too-early": self.sums(case, inputs, np.searchsorted(case.ends, rows + 1, side="right")),
            "equal-counts-assumed": self.sums(case, inputs, rows * len(case.counts) // case.total),
            "last-expert-missing": self.sums(case, inputs, np.minimum(groups, len(case.counts) - 2)),
            "row-of-expert-for-x": np.einsum("rk,rnk->rn", x[inside], w[groups]),
            "weights-transposed (same memory)": np.einsum("rk,rkn->rn", x, as_transposed),
            "last-k-missing": y - x[:, -1:] * w[groups, :, -1],
            "first-k-missing": y - x[:, :1] * w[groups, :, 0],
            "x-of-first-row": np.einsum("rk,rnk->rn", x[rows // 2 * 2], w[groups]),
            "sum-not-reset": y + np.where(rows[:, None] % 2 == 1, np.roll(y, 1, axis=0), 0.0),
        }

    def job(self, case, inputs, output):
        return {
            "kind": "kernel",
            "function": "two_rows_kernel",
            "shape_function": "launch_shape",
            "shape_arguments": [case.total, case.N],
            "arguments": [{"device": inputs["x"]}, {"device": inputs["w"]}, {"device": case.ends}, output],
        }

    def most_reads(self, case):
        outputs = case.total * case.N
        return {"x": outputs * case.K, "w": outputs * case.K, "y": 0}


def search(case):
    """A job that asks find_group for every row."""
    output = {"output": guarded_output(case.total, 1, np.int32), "guard": NUM_GUARD_ROWS}
    arguments = [{"device": case.ends}, output]
    return {"kind": "probe", "function": "find_group", "num_threads": case.total, "arguments": arguments}


ONE = Case((8,), 16, 6, "one expert, whole blocks")
PAIRS = Case((4, 8, 4), 16, 4, "three experts, no pair at a border")
BORDERS = Case((3, 1, 7, 5), 16, 5, "experts that end inside a pair")
ODD = Case((5,), 19, 3, "one expert, an odd number of rows")

exercise = Concatenated()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "find_group: experts that all have tokens")
def test_search(student):
    for case in (PAIRS, BORDERS, Case((1, 1, 1), 1, 1)):
        student.finds(search(case), case.groups, f"find_group with ends = {case.ends.tolist()}")


@check(2, "find_group: empty experts")
def test_search_empty(student):
    for case in ragged(student.seed, *exercise.tile):
        student.finds(search(case), case.groups, f"find_group with ends = {case.ends.tolist()}")


@check(1, "find_group reads ends about log2(num_experts) times")
def test_search_budget(student):
    counts = tuple(np.random.default_rng(student.seed).integers(0, 3, 64).tolist())
    case = Case(counts, 1, 1)
    most = case.total * (2 + math.ceil(math.log2(len(counts))))
    student.finds(search(case), case.groups, "find_group with 64 experts", most)


@check(2, "one expert, whole blocks")
def test_one_expert(student):
    student.is_right(ONE)


@check(2, "one expert, an odd number of rows and a ragged N")
def test_odd(student):
    student.is_right(ODD)


@check(2, "experts that end inside a pair of rows")
def test_borders(student):
    student.is_right(PAIRS, BORDERS)


@check(3, "ragged cases: empty experts, single tokens")
def test_ragged(student):
    student.is_right(*ragged(student.seed, *exercise.tile))


@check(2, "one thread for two rows")
def test_threads(student):
    student.uses_threads(Case((66, 0, 62), 32, 1), rows_per_thread=2)


@check(2, "the checked simulator finds nothing: bounds, races, uninitialised memory")
def test_clean(student):
    student.is_clean(*exercise.cases(student.seed))


@check(1, "reads of global memory are within the budget")
def test_traffic(student):
    student.keeps_to(ODD, BORDERS)


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((300, 0, 1, 77), 130, 65, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
