"""Grader of exercise 13.  `SplitK.want` and `parts_of` are the oracle."""

import numpy as np

from gemm_lessons.grading import misconceptions
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.feedback import CheckFailedError, Feedback
from gemm_lessons.grading.judge import wanted

BM, BN = 4, 8
LEAST_K = 8
WANTED_BLOCKS = 16  # why more than the simulator's 8 SMs: a block that waits for another must not get by
TWICE, THRICE = "launched twice", "launched three times"
SCHEDULES = range(4)  # orders of blocks, in which the parts of a tile come in other orders
GPU_RUNS = range(50)  # why so many: a GPU mostly starts blocks in order


def tiles_of(case):
    """How many tiles each expert has."""
    return [-(-count // BM) * -(-case.N // BN) for count in case.counts]


def num_tiles(case):
    return sum(tiles_of(case))


def parts_of(case):
    return max(1, min(WANTED_BLOCKS // num_tiles(case), case.K // LEAST_K))


class SplitK(GroupedExercise):
    """A grouped product whose sums over K are cut."""

    name = "ex13_split_k"
    tile = (BM, BN)
    seconds = 6.0
    signatures = {
        "split_kernel": (
            "void(float32[:, ::1], float32[:, :, ::1], int32[::1], int32[::1], float32[:, ::1], int32[::1],"
            " float32[:, ::1])",
        )
    }

    def cases(self, seed):
        return [WHOLE, MANY, SIXTEEN, TILES, UNEVEN, GAPS, AGAIN, *self.ragged(seed)]

    def ragged(self, seed):
        """The ragged counts, of a dozen experts at most, with a K of a few parts."""
        return [Case(case.counts[:12], case.N, 4 * case.K + 3, case.name) for case in ragged(seed, BM, BN)]

    def sums(self, case, inputs, kept=None):
        """x @ w[expert of each row].T in float64, of those k that are kept: a weight for each."""
        x, w = (inputs[name].astype(np.float64) for name in ("x", "w"))
        kept = np.ones(case.K) if kept is None else kept
        return np.einsum("rk,rnk,k->rn", x, w[case.groups], kept)

    def want(self, case, inputs):
        squares = {name: np.square(array.astype(np.float64)) for name, array in inputs.items()}
        return wanted(self.sums(case, inputs), np.sqrt(self.sums(case, squares)), case.K)

    def alternatives(self, case, inputs):
        parts, k = parts_of(case), np.arange(case.K)
        short, long = case.K // parts, -(-case.K // parts)
        borders = [case.K * part // parts for part in range(1, parts)]
        return {
            "tail-of-k": self.sums(case, inputs, k < short * parts),
            "border-twice": self.sums(case, inputs, 1 + np.isin(k, borders)),
            "border-lost": self.sums(case, inputs, ~np.isin(k + 1, [*borders, case.K])),
            "one-part": self.sums(case, inputs, k >= case.K * (parts - 1) // parts),
            "one-part (first)": self.sums(case, inputs, k < short),
            "one-part (first, long)": self.sums(case, inputs, k < long),
            "part-missing": self.sums(case, inputs, k < case.K * (parts - 1) // parts),
            "part-missing (first)": self.sums(case, inputs, k >= short),
            "part-twice": self.sums(case, inputs, 1 + (k >= case.K * (parts - 1) // parts)),
            "whole-k": parts * self.sums(case, inputs),
        }

    def job(self, case, inputs, output):
        slots = max(WANTED_BLOCKS, num_tiles(case))
        return {
            "kind": "kernel",
            "function": "split_kernel",
            "times": self.num_launches(case),
            "shape_function": "launch_shape",
            "shape_arguments": [num_tiles(case), case.K, WANTED_BLOCKS],
            "arguments": [
                {"device": inputs["x"]},
                {"device": inputs["w"]},
                {"device": case.ends},
                {"device": np.cumsum(tiles_of(case)).astype(np.int32)},
                {"device": np.full((slots, BM * BN), np.nan, np.float32)},
                {"device": np.zeros(num_tiles(case), np.int32)},
                output,
            ],
        }

    def num_launches(self, case):
        return 3 if case.name.endswith(THRICE) else 2 if case.name.endswith(TWICE) else 1

    def most_reads(self, case):
        return {"w": self.num_launches(case) * case.total * case.N * case.K}


WHOLE = Case((3, 2), 10, 7, "a K that is not cut")
MANY = Case((1,) * 9, 10, 9, "more tiles than blocks are wanted")
SIXTEEN = Case((4,), 8, 128, "one tile, sixteen equal parts")
TILES = Case((3,), 22, 65, "three tiles, as many parts as blocks allow")
UNEVEN = Case((2, 1), 7, 43, "parts that do not divide K")
GAPS = Case((0, 2, 0, 0, 5, 0), 5, 29, f"empty experts, {TWICE}")
AGAIN = Case((3, 1), 8, 38, f"two tiles, {THRICE}")
LARGE = Case((4, 0, 3), 8, 7168, "a long K in eight parts")

exercise = SplitK()


def known(key):
    return misconceptions.texts()[key]


def bits(run):
    return run.judgement.whole.view(np.uint32)


def has_the_same_bits(student, case, schedules=SCHEDULES, device="sim"):
    """Fail if some order of blocks gives other bits."""
    first = student.run(case, device=device)
    for schedule in schedules[1:]:
        other = student.run(case, schedule=schedule, device=device)
        if other.judgement is None or not other.judgement.ok:
            what = f"y is wrong in another order of blocks (number {schedule}), for {case}."
            where = "" if other.judgement is None else other.judgement.describe()
            raise CheckFailedError(student.explained(Feedback(what, where)))
        differs = bits(first) != bits(other)
        if differs.any():
            what = f"y has other bits when blocks come in another order, for {case}."
            where = (
                f"{differs.sum()} of {case.total * case.N} outputs differ between orders 0 and {schedule}, by"
                f" {np.abs(first.judgement.whole - other.judgement.whole)[differs].max():.2g} at most."
            )
            raise CheckFailedError(Feedback(what, where, likely=known("order-of-arrival")))


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(3, "num_parts: enough blocks, no short parts, at least one")
def test_parts(student):
    for case in (WHOLE, MANY, SIXTEEN, TILES, UNEVEN, AGAIN):
        run, right = student.run(case), parts_of(case)
        blocks = int(np.prod(run.outcome.launches[0]["grid"])) if run.outcome.launches else None
        if blocks is not None and blocks != right * num_tiles(case):
            what = f"num_parts gives {blocks / num_tiles(case):g}, and {right} is right, for {case}."
            where = (
                f"{num_tiles(case)} tiles, {WANTED_BLOCKS} wanted blocks, K = {case.K}, LEAST_K = {LEAST_K}."
            )
            key = "no-part" if blocks == 0 else "too-few-parts"
            if blocks > right * num_tiles(case):
                key = "too-many-blocks" if blocks > WANTED_BLOCKS else "short-parts"
            raise CheckFailedError(Feedback(what, where, likely=known(key)))
        student.is_right(case)


@check(2, "tiles that are not cut")
def test_whole(student):
    student.is_right(WHOLE, MANY)


@check(3, "parts of the same length, and a workspace full of NaN")
def test_equal(student):
    student.is_right(SIXTEEN, TILES)


@check(2, "parts that do not divide K")
def test_uneven(student):
    student.is_right(UNEVEN)


@check(3, "launched again, with counters that nobody resets in between")
def test_again(student):
    student.is_right(AGAIN, GAPS)


@check(3, "ragged cases: empty experts, single tokens")
def test_ragged(student):
    student.is_right(*exercise.ragged(student.seed))


@check(4, "the same bits, in whichever order the blocks come")
def test_same_bits(student):
    for case in (SIXTEEN, UNEVEN):
        student.is_right(case)
        has_the_same_bits(student, case)


@check(4, "the checked simulator finds nothing: races, fences, barriers, bounds")
def test_clean(student):
    student.is_clean(SIXTEEN, UNEVEN, AGAIN, GAPS, schedules=(0, 1, 2))
    student.is_clean(*exercise.cases(student.seed), schedules=(0,))


@check(2, "every weight is read by one part, and every output is written once")
def test_once(student):
    cases = (SIXTEEN, UNEVEN, GAPS)
    student.keeps_to(*cases)
    for case in cases:
        stores = student.run(case).outcome.accesses("y", "store")
        most = exercise.num_launches(case) * case.total * case.N
        if stores > most:
            what = f"y is written {stores} times, and {most} are enough, for {case}."
            raise CheckFailedError(Feedback(what, likely=known("every-block-adds-up")))


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU, with the same bits every time")
def test_on_gpu(student):
    student.gpu_runner()
    student.is_clean(SIXTEEN, schedules=(0, 1))  # why first: on a GPU, blocks that wait may wait for ever
    student.is_right(*exercise.cases(student.seed), LARGE, device="gpu")
    has_the_same_bits(student, LARGE, GPU_RUNS, device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
