"""Grader of exercise 02.  `Launches.want` is the oracle."""

import numpy as np

from gemm_lessons.grading.cases import NO_TOKENS, Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.judge import wanted


def relu(y):
    return np.maximum(y, 0.0)


class Launches(GroupedExercise):
    """A layer with bias and ReLU, one launch for each expert that has tokens."""

    name = "ex02_launches"
    tile = (4, 16)
    signatures = {"expert_kernel": ("void(float32[:, ::1], float32[:, ::1], float32[::1], float32[:, ::1])",)}

    def cases(self, seed):
        return [ONE, EDGES, SEVERAL, *ragged(seed, *self.tile)]

    def inputs(self, case, rng):
        num_groups = len(case.counts)
        return {
            "x": rng.standard_normal((case.total, case.K), dtype=np.float32),
            "w": rng.standard_normal((num_groups, case.K, case.N), dtype=np.float32),
            "bias": rng.standard_normal((num_groups, case.N), dtype=np.float32),
        }

    def sums(self, case, inputs, experts=None):
        """x @ w[expert of each row] in float64, and the root of the sum of squared terms."""
        experts = case.groups if experts is None else experts
        x, w = inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)[experts]
        squares = np.einsum("rk,rkn->rn", x**2, w**2)
        return np.einsum("rk,rkn->rn", x, w), np.sqrt(squares)

    def want(self, case, inputs):
        y, spread = self.sums(case, inputs)
        bias = inputs["bias"].astype(np.float64)[case.groups]
        exact = wanted(y + bias, np.hypot(spread, bias), case.K + 1)
        return type(exact)(relu(exact.y), exact.allowed)

    def alternatives(self, case, inputs):
        groups, num_groups = case.groups, len(case.counts)
        x, w, b = (inputs[name].astype(np.float64) for name in ("x", "w", "bias"))
        bias = b[groups]
        y, _ = self.sums(case, inputs)
        next_y, _ = self.sums(case, inputs, (groups + 1) % num_groups)
        first_y, _ = self.sums(case, inputs, groups * 0)
        as_lesson = w.reshape(num_groups, case.N, case.K)[groups]
        active = np.flatnonzero(case.counts)
        compact = np.searchsorted(active, groups)
        compact_y, _ = self.sums(case, inputs, compact)
        owners = last_to_write(case)
        late_y, _ = self.sums(case, inputs, owners)
        inside = np.arange(case.total) - case.problem.offsets[groups]
        by_row = np.where(inside < case.N, b[groups, np.minimum(inside, case.N - 1)], np.nan)
        last_k = x[:, -1:] * w[groups, -1]
        first_k = x[:, :1] * w[groups, 0]
        return {
            "bias-forgotten": relu(y),
            "relu-forgotten": y + bias,
            "bias-forgotten (and ReLU)": y,
            "relu-before-bias": relu(y) + bias,
            "bias-for-each-k": relu(y + case.K * bias),
            "bias-of-first-expert": relu(y + b[groups * 0]),
            "relu-negated": np.minimum(y + bias, 0.0),
            "relu-inside-the-loop (products)": relu(bias + relu(x[:, :, None] * w[groups]).sum(axis=1)),
            "relu-inside-the-loop": running_relu(x, w[groups], bias),
            "wrong-experts-weights (first)": relu(first_y + bias),
            "wrong-experts-weights (first, with bias)": relu(first_y + b[groups * 0]),
            "wrong-experts-weights (next)": relu(next_y + bias),
            "wrong-experts-weights (next, with bias)": relu(next_y + b[(groups + 1) % num_groups]),
            "experts-renumbered": relu(compact_y + b[compact]),
            "weights-transposed (same memory)": relu(np.einsum("rk,rnk->rn", x, as_lesson) + bias),
            "last-k-missing": relu(y - last_k + bias),
            "first-k-missing": relu(y - first_k + bias),
            "start-not-advanced": relu(late_y + b[owners]),
            "bias-by-row": relu(y + by_row[:, None]),
        }

    def job(self, case, inputs, output):
        arrays = [{"device": inputs[name]} for name in ("x", "w", "bias")]
        arguments = [{"host": list(case.counts)}, *arrays, output]
        return {"kind": "launcher", "function": "launch_experts", "arguments": arguments}

    def num_launches(self, case):
        return sum(count > 0 for count in case.counts)

    def most_reads(self, case):
        outputs = case.total * case.N
        return {"x": outputs * case.K, "w": outputs * case.K, "bias": outputs, "y": 0}


def last_to_write(case):
    """The expert whose result stays in each row if all of them start at row 0."""
    reach = [[g for g, count in enumerate(case.counts) if count > row] for row in range(case.total)]
    return np.array([experts[-1] if experts else 0 for experts in reach], np.int64)


def running_relu(x, w, bias):
    acc = bias.copy()
    for k in range(x.shape[1]):
        acc = relu(acc + x[:, k, None] * w[:, k])
    return acc


ONE = Case((8,), 48, 6, "one expert, whole blocks")
EDGES = Case((6,), 21, 5, "one expert, ragged edges")
SEVERAL = Case((4, 8, 4), 16, 4, "three experts, whole blocks")

exercise = Launches()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "one expert, whole blocks")
def test_one_expert(student):
    student.is_right(ONE)


@check(2, "one expert, ragged edges")
def test_edges(student):
    student.is_right(EDGES)


@check(2, "several experts, each with its own weights and bias")
def test_experts(student):
    student.is_right(SEVERAL)


@check(3, "ragged cases: empty experts, single tokens, no tokens")
def test_ragged(student):
    student.is_right(*ragged(student.seed, *exercise.tile), NO_TOKENS)


@check(2, "one launch for each expert that has tokens, none for the others")
def test_launches(student):
    student.launches_well(*exercise.cases(student.seed), NO_TOKENS)


@check(2, "the checked simulator finds nothing: bounds, races, uninitialised memory")
def test_clean(student):
    student.is_clean(*exercise.cases(student.seed))


@check(1, "reads of global memory are within the budget")
def test_traffic(student):
    student.keeps_to(EDGES, SEVERAL)


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((300, 0, 1, 77), 130, 65, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
