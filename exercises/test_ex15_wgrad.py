"""Grader of exercise 15.  `Wgrad.want` is the oracle."""

from dataclasses import replace

import numpy as np

from gemm_lessons.grading import misconceptions
from gemm_lessons.grading.cases import NO_TOKENS, Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.feedback import CheckFailedError, Feedback
from gemm_lessons.grading.judge import wanted

BM = BN = BK = 8
AFTER_LOAD, BEFORE_LOAD = "barrier-missing-after-load", "barrier-before-load-missing"
MORE_TOKENS = 3  # than the longest expert has slots: some sit nowhere


def tiles_of_an_expert(case):
    return -(-case.N // BM) * -(-case.K // BN)


def mirrored_in_tiles(dw):
    """dw [N, K] with every tile transposed in its place; zeros come in where a tile sticks out."""
    N, K = dw.shape
    whole = np.zeros((-(-N // BM) * BM, -(-K // BN) * BN))
    whole[:N, :K] = dw
    tiles = whole.reshape(len(whole) // BM, BM, -1, BN)
    return tiles.transpose(0, 3, 2, 1).reshape(whole.shape)[:N, :K]


class Wgrad(GroupedExercise):
    """The gradient of the weights over slots that refer to tokens."""

    name = "ex15_wgrad"
    tile = (BM, BN)
    output = "dw"
    seconds = 6.0
    signatures = {
        "wgrad_kernel": (
            "void(float32[:, ::1], float32[:, ::1], int32[::1], float32[::1], int32[::1], float32[:, ::1])",
        )
    }

    def cases(self, seed):
        return [ONE, SLABS, TAIL, EDGES, SEVERAL, EMPTY, *ragged(seed, BK, BN)]

    def output_case(self, case):
        return replace(case, counts=(case.N,) * len(case.counts), N=case.K)

    def inputs(self, case, rng):
        """Every expert's slots refer to other tokens, in any order; a token may sit with several experts."""
        num_tokens = max(case.counts) + MORE_TOKENS
        tokens = [rng.permutation(num_tokens)[:count] for count in case.counts]
        return {
            "dy": rng.standard_normal((num_tokens, case.N), dtype=np.float32),
            "x": rng.standard_normal((num_tokens, case.K), dtype=np.float32),
            "token_of": np.concatenate(tokens).astype(np.int32),
            "scale": rng.uniform(0.2, 1.0, case.total).astype(np.float32),
        }

    def sums(self, case, inputs, *, starts=None, stops=None, scale=None, dy_rows=None, x_rows=None):
        """dw in float64, [num_experts * N, K]; slots from starts to stops, and rows, may be other ones."""
        token_of = inputs["token_of"]
        starts = case.problem.offsets[:-1] if starts is None else starts
        stops = case.ends if stops is None else stops
        scale = inputs["scale"] if scale is None else scale
        left = inputs["dy"].astype(np.float64)[token_of if dy_rows is None else dy_rows]
        left = left * scale.astype(np.float64)[:, np.newaxis]
        right = inputs["x"].astype(np.float64)[token_of if x_rows is None else x_rows]
        pieces = zip(np.maximum(starts, 0), np.minimum(stops, case.total), strict=True)
        return np.concatenate([left[first:last].T @ right[first:last] for first, last in pieces])

    def want(self, case, inputs):
        squares = inputs | {name: np.square(inputs[name].astype(np.float64)) for name in ("dy", "x", "scale")}
        # why + 2: the product with scale is one more rounding, and so is that of its square
        terms = np.repeat(np.array(case.counts) + 2, case.N)[:, np.newaxis]
        return wanted(self.sums(case, inputs), np.sqrt(self.sums(case, squares)), terms)

    def alternatives(self, case, inputs):
        starts, ends, counts = case.problem.offsets[:-1], case.ends, np.array(case.counts)
        zeros, ones = np.zeros_like(ends), np.ones_like(inputs["scale"])
        slots = np.minimum(np.arange(case.total), len(inputs["x"]) - 1)
        right = self.sums(case, inputs)
        return {
            "accumulates-across-experts (those before)": self.sums(case, inputs, starts=zeros),
            "accumulates-across-experts (all)": self.sums(
                case, inputs, starts=zeros, stops=zeros + case.total
            ),
            "terms-of-next-expert": self.sums(
                case, inputs, stops=np.where(counts > 0, starts + -(-counts // BK) * BK, ends)
            ),
            "slab-tail-dropped": self.sums(case, inputs, stops=starts + counts // BK * BK),
            "one-slab-of-terms": self.sums(case, inputs, stops=np.minimum(starts + BK, ends)),
            "sum-not-kept": self.sums(
                case, inputs, starts=np.maximum(starts + (counts - 1) // BK * BK, starts)
            ),
            "end-counted-as-inside": self.sums(case, inputs, stops=ends + 1),
            "end-too-early": self.sums(case, inputs, stops=np.maximum(ends - 1, starts)),
            "first-term-missing": self.sums(case, inputs, starts=np.minimum(starts + 1, ends)),
            "terms-of-other-expert (next)": self.sums(
                case, inputs, starts=np.roll(starts, -1), stops=np.roll(ends, -1)
            ),
            "scale-forgotten": self.sums(case, inputs, scale=ones),
            "scale-twice": self.sums(case, inputs, scale=np.square(inputs["scale"])),
            "scale-of-token": self.sums(case, inputs, scale=self.by_token(inputs)),
            "slot-for-token (both)": self.sums(case, inputs, dy_rows=slots, x_rows=slots),
            "slot-for-token (x)": self.sums(case, inputs, x_rows=slots),
            "slot-for-token (dy)": self.sums(case, inputs, dy_rows=slots),
            "dw-transposed (in a tile)": np.concatenate(
                [mirrored_in_tiles(one) for one in right.reshape(-1, case.N, case.K)]
            ),
            "mean-for-sum": right / np.maximum(np.repeat(counts, case.N), 1)[:, np.newaxis],
        }

    def by_token(self, inputs):
        """scale[token] in place of scale[slot], as far as there are so many."""
        token_of, scale = inputs["token_of"], inputs["scale"]
        return scale[np.minimum(token_of, max(len(scale) - 1, 0))]

    def job(self, case, inputs, output):
        return {
            "kind": "kernel",
            "function": "wgrad_kernel",
            "shape": [len(case.counts) * tiles_of_an_expert(case), [BN, BM]],
            "arguments": [
                *({"device": inputs[name]} for name in ("dy", "x", "token_of", "scale")),
                {"device": case.ends},
                output,
            ],
        }

    def most_reads(self, case):
        dy = case.total * case.N * -(-case.K // BN)
        x = case.total * case.K * -(-case.N // BM)
        return {"dy": dy, "x": x, "dw": 0}


ONE = Case((8,), 8, 8, "one expert, one tile, one slab of slots")
SLABS = Case((24,), 8, 8, "one expert, one tile, three slabs")
TAIL = Case((13,), 8, 8, "one expert, 13 slots")
EDGES = Case((8,), 19, 11, "one expert, ragged rows and columns of dw")
SEVERAL = Case((8, 16, 8), 16, 16, "three experts, whole slabs")
EMPTY = Case((0, 5, 0, 3), 9, 7, "experts without slots")

exercise = Wgrad()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "one tile")
def test_one_tile(student):
    student.is_right(ONE, SLABS)


@check(2, "a number of slots that BK does not divide")
def test_tail(student):
    student.is_right(TAIL)


@check(2, "ragged rows and columns of dw")
def test_edges(student):
    student.is_right(EDGES)


@check(2, "several experts")
def test_experts(student):
    student.is_right(SEVERAL)


@check(3, "experts without slots have a gradient, too: zero")
def test_empty(student):
    student.is_right(EMPTY, NO_TOKENS)


@check(3, "ragged cases: empty experts, single slots")
def test_ragged(student):
    student.is_right(*ragged(student.seed, BK, BN))


@check(4, "the checked simulator finds nothing: barriers, races, bounds, uninitialised memory")
def test_clean(student):
    try:
        student.is_clean(*exercise.cases(student.seed))
    except CheckFailedError as failed:
        likely = failed.feedback.likely
        if likely is not None and likely.key in (AFTER_LOAD, BEFORE_LOAD):
            # why: with a single slab, nothing is overwritten
            likely = misconceptions.texts()[AFTER_LOAD if student.run(ONE).outcome.findings else BEFORE_LOAD]
        raise CheckFailedError(replace(failed.feedback, likely=likely)) from None


@check(2, "every element of dw is written once, and the same bits in any order")
def test_once(student):
    for case in (SLABS, SEVERAL, EMPTY):
        student.is_right(case)
        runs = [student.run(case, schedule=schedule) for schedule in range(3)]
        stores = runs[0].outcome.accesses("dw", "store") + runs[0].outcome.accesses("dw", "atomic")
        most = len(case.counts) * case.N * case.K
        if stores > most:
            what = f"dw is written {stores} times, and {most} are enough, for {case}."
            atomics = runs[0].outcome.accesses("dw", "atomic")
            likely = misconceptions.texts()["adds-with-atomics" if atomics else "sums-in-global-memory"]
            raise CheckFailedError(Feedback(what, likely=likely))
        bits = {run.outcome.outputs[0].tobytes() for run in runs}
        if len(bits) > 1:
            what = f"Three orders of threads give {len(bits)} different results, for {case}."
            raise CheckFailedError(student.explained(Feedback(what, look="Who adds up one element of dw?")))


@check(2, "rows of dy and x are read from global memory once for each tile")
def test_traffic(student):
    for case in (SLABS, EDGES, SEVERAL):
        student.is_right(case)
        # why together: a helper function that loads from either is counted under one name
        reads = sum(student.run(case).outcome.accesses(name) for name in ("dy", "x"))
        most = exercise.most_reads(case)["dy"] + exercise.most_reads(case)["x"]
        if reads > most:
            what = f"dy and x are read {reads} times from global memory; {most} are enough, for {case}."
            look = "How many threads of a block read the same number, and could they share it?"
            raise CheckFailedError(student.explained(Feedback(what, look=look)))


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((300, 0, 1, 77), 130, 65, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
