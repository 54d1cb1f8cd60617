"""Grader of exercise 04.  `Tiles.want` is the oracle."""

from dataclasses import replace

import numpy as np

from gemm_lessons.grading import misconceptions
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.feedback import CheckFailedError
from gemm_lessons.grading.judge import wanted

BM = BN = BK = 8
AFTER_LOAD, BEFORE_LOAD = "barrier-missing-after-load", "barrier-before-load-missing"


def relu(y):
    return np.maximum(y, 0.0)


def tiles_of(case):
    """Tiles of each expert."""
    return np.array([-(-count // BM) * -(-case.N // BN) for count in case.counts], np.int32)


class Tiles(GroupedExercise):
    """Gate and up in one tiled kernel."""

    name = "ex04_tiles"
    tile = (BM, BN)
    seconds = 6.0
    signatures = {
        "gate_up_kernel": (
            "void(float32[:, ::1], float32[:, :, ::1], int32[::1], int32[::1], float32[:, ::1])",
        )
    }

    def cases(self, seed):
        return [ONE, SLABS, EDGES, DEPTH, TWO, *ragged(seed, BM, BN)]

    def inputs(self, case, rng):
        return {
            "x": rng.standard_normal((case.total, case.K), dtype=np.float32),
            "w": rng.standard_normal((len(case.counts), 2 * case.N, case.K), dtype=np.float32),
        }

    def sums(self, case, inputs, experts=None, ks=slice(None)):
        """Both products in float64: [total, 2 N]."""
        experts = case.groups if experts is None else experts
        x, w = inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)
        return np.einsum("rk,rnk->rn", x[:, ks], w[experts][:, :, ks])

    def want(self, case, inputs):
        squares = {name: np.square(array.astype(np.float64)) for name, array in inputs.items()}
        gate, up = np.hsplit(self.sums(case, inputs), 2)
        gate_spread, up_spread = np.hsplit(np.sqrt(self.sums(case, squares)), 2)
        spread = np.abs(up) * gate_spread + np.abs(gate) * up_spread + gate_spread * up_spread
        return wanted(relu(gate) * up, spread, case.K + 2)

    def alternatives(self, case, inputs):
        both = self.sums(case, inputs)
        gate, up = np.hsplit(both, 2)
        num_groups, full = len(case.counts), case.K // BK * BK
        ends = case.ends[case.groups]

        def of(sums):
            first, second = np.hsplit(sums, 2)
            return relu(first) * second

        return {
            "relu of up": gate * relu(up),
            "no relu": gate * up,
            "relu of the product": relu(gate * up),
            "relu of both": relu(gate) * relu(up),
            "gate alone": relu(gate),
            "up alone": up,
            "gate for up": relu(gate) * gate,
            "up for gate": relu(up) * up,
            "gate + up": relu(gate) + up,
            "rows of gate and up alternate": relu(both[:, ::2]) * both[:, 1::2],
            "weights of the first expert": of(self.sums(case, inputs, case.groups * 0)),
            "weights of the next expert": of(self.sums(case, inputs, (case.groups + 1) % num_groups)),
            "weights of the expert before": of(
                self.sums(case, inputs, np.maximum(case.groups - (np.arange(case.total) >= ends - 8), 0))
            ),
            "last slab of K missing": of(
                self.sums(case, inputs, ks=slice(0, max(full - BK * (full == case.K), 0)))
            ),
            "tail of K missing": of(self.sums(case, inputs, ks=slice(0, full))),
            "first slab alone": of(self.sums(case, inputs, ks=slice(0, BK))),
            "last slab alone": of(self.sums(case, inputs, ks=slice((case.K - 1) // BK * BK, None))),
        }

    def job(self, case, inputs, output):
        tile_ends = np.cumsum(tiles_of(case)).astype(np.int32)
        return {
            "kind": "kernel",
            "function": "gate_up_kernel",
            "shape": [int(tile_ends[-1]), [BN, BM]],
            "arguments": [
                {"device": inputs["x"]},
                {"device": inputs["w"]},
                {"device": case.ends},
                {"device": tile_ends},
                output,
            ],
        }

    def most_reads(self, case):
        tiles_m = sum(-(-count // BM) for count in case.counts)
        x = case.total * case.K * -(-case.N // BN)
        return {"x": x, "w": 2 * case.N * case.K * tiles_m, "y": 0}


ONE = Case((8,), 8, 8, "one expert, one tile, one slab")
SLABS = Case((16,), 16, 24, "one expert, whole tiles, three slabs")
EDGES = Case((13,), 11, 8, "one expert, ragged rows and columns")
DEPTH = Case((8,), 8, 13, "one expert, a K that BK does not divide")
TWO = Case((8, 16, 8), 16, 16, "three experts, whole tiles")

exercise = Tiles()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "one tile")
def test_one_tile(student):
    student.is_right(ONE)


@check(2, "several tiles and slabs")
def test_slabs(student):
    student.is_right(SLABS)


@check(2, "ragged rows and columns")
def test_edges(student):
    student.is_right(EDGES)


@check(2, "a ragged tail of K")
def test_depth(student):
    student.is_right(DEPTH)


@check(2, "several experts")
def test_experts(student):
    student.is_right(TWO)


@check(3, "ragged cases: empty experts, single tokens")
def test_ragged(student):
    student.is_right(*ragged(student.seed, *exercise.tile))


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


@check(2, "a slab is read from global memory once")
def test_traffic(student):
    student.keeps_to(SLABS, EDGES, TWO)


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((300, 0, 1, 77), 130, 65, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
