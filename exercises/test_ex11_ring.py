"""Grader of exercise 11.  `walk` and `Ring.want` are the oracle."""

import re

import numpy as np

from gemm_lessons.grading import misconceptions
from gemm_lessons.grading.cases import NO_TOKENS, Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.feedback import CheckFailedError, Feedback
from gemm_lessons.grading.judge import wanted

BM, STAGES, MOST_K = 4, 3, 64
BARRIERS_AT = 1024  # in the simulator's shared memory: the first array of the kernel
NUM_BLOCKS, NUM_THREADS = 2, 96
SCHEDULES = (0, 1, 2)  # why several: a stage that is reused too early is a race in some orders only


def walk(wraps_at, flips):
    """Stages and phases of a ring, [steps, 2]; flips(stage, next stage) says where the phase changes."""
    found, stage, phase = [], 0, 0
    for _ in range(4 * STAGES + 1):
        following = 0 if stage == wraps_at else stage + 1
        phase ^= flips(stage, following)
        stage = following
        found.append((stage, phase))
    return np.array(found)


WALK = walk(STAGES - 1, lambda stage, following: following == 0)
MISTAKES = {
    "phase-never-flips": walk(STAGES - 1, lambda stage, following: False),
    "phase-flips-each-piece": walk(STAGES - 1, lambda stage, following: True),
    "ring-too-long": walk(STAGES, lambda stage, following: following == 0),
}


class Ring(GroupedExercise):
    """A producer, consumers, and a ring of stages between them."""

    name = "ex11_ring"
    tile = (1, 32)
    seconds = 6.0
    compute_capability = (9, 0)
    instructions = frozenset(
        (
            "fence_mbarrier_init",
            "mbarrier_arrive",
            "mbarrier_arrive_expect_tx",
            "mbarrier_init",
            "mbarrier_try_wait",
            "shared_address",
            "address_of",
            "cp_async_bulk",
        )
    )
    signatures = {"ring_kernel": ("void(float32[:, ::1], int32[::1], float32[:, ::1])",)}

    def cases(self, seed):
        return [ONE, FULL, ONCE_AROUND, AROUND, COLUMNS, SHORT, GOES_ON, GAPS, *self.ragged(seed)]

    def ragged(self, seed):
        """The ragged counts, of a dozen experts at most."""
        return [Case(case.counts[:12], 1, 4 * case.K + 3, case.name) for case in ragged(seed, BM, 8)]

    def columns(self, case):
        return min(case.K, MOST_K)

    def output_case(self, case):
        return Case((1,) * len(case.counts), self.columns(case), 1, hidden=case.hidden)

    def inputs(self, case, rng):
        columns = self.columns(case)
        x = np.full((case.total, -(-columns // 4) * 4), np.nan, np.float32)  # NaN: the padding of a row
        x[:, :columns] = rng.standard_normal((case.total, columns))
        return {"x": x}

    def sums(self, case, x, rows=None):
        """The sum of each expert's rows in float64, of those that `rows` of (row, count) keeps."""
        y = np.zeros((len(case.counts), self.columns(case)))
        for expert, (count, end) in enumerate(zip(case.counts, case.ends, strict=True)):
            for row in range(count):
                if rows is None or rows(row, count):
                    y[expert] += x[end - count + row, : self.columns(case)]
        return y

    def want(self, case, inputs):
        x = inputs["x"].astype(np.float64)
        most = max(*case.counts, 1)
        return wanted(self.sums(case, x), np.sqrt(self.sums(case, np.square(x))), most)

    def alternatives(self, case, inputs):
        x = inputs["x"].astype(np.float64)
        written = self.sums(case, x)
        written[np.asarray(case.counts) == 0] = np.nan
        return {
            "empty-not-written": written,
            "not-drained": self.sums(case, x, lambda row, count: row // BM < (count - 1) // BM),
            "not-drained (short)": self.sums(case, x, lambda row, count: row < count // BM * BM),
            "not-drained (whole ring)": self.sums(
                case, x, lambda row, count: row // BM <= (count - 1) // BM - STAGES
            ),
            "one-piece": self.sums(case, x, lambda row, count: row < BM),
            "one-row": self.sums(case, x, lambda row, count: row % BM == 0),
        }

    def job(self, case, inputs, output):
        return {
            "kind": "kernel",
            "function": "ring_kernel",
            "shape": [NUM_BLOCKS, NUM_THREADS],
            "times": 2,
            "arguments": [{"device": inputs["x"]}, {"device": case.ends}, output],
        }

    def num_launches(self, case):
        return 2

    def in_its_words(self, finding):
        def name(match):
            kind, stage = divmod((int(match[1]) - BARRIERS_AT) // 8, STAGES)
            return f"{('full', 'empty')[kind]}[{stage}]" if kind in (0, 1) else match[0]

        return re.sub(r"the mbarrier at offset (\d+)", name, finding)

    def most_reads(self, case):
        return {"x": 0}


ONE = Case((1,), 1, MOST_K, "one row")
FULL = Case((BM, BM), 1, MOST_K, "a full piece for each block")
ONCE_AROUND = Case((STAGES * BM, STAGES * BM), 1, MOST_K, "as many pieces as stages")
AROUND = Case((7 * BM, (4 * STAGES + 1) * BM), 1, MOST_K, "several times around the ring")
COLUMNS = Case((2 * BM, BM), 1, 37, "a K that is no multiple of 4")
SHORT = Case((3 * BM + 1, BM - 1), 1, 8, "short last pieces")
GOES_ON = Case((8, 4, 4, 8, 12, 16, 4, 24), 1, MOST_K, "the ring goes on from expert to expert")
GAPS = Case((0, 5, 0, 0, 9, 0, 0), 1, 12, "empty experts")
LONG = Case((0, 2001, 7, 0, 64, 1), 1, 61, "long")

exercise = Ring()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(3, "next_place: four times around the ring")
def test_next(student):
    student.walks("next_place", WALK, ("stage", "phase"), MISTAKES)


@check(2, "one piece, of one row and of all rows")
def test_one(student):
    student.is_right(ONE, FULL)


@check(2, "as many pieces as stages")
def test_once_around(student):
    student.is_right(ONCE_AROUND)


@check(3, "several times around the ring")
def test_around(student):
    student.is_right(AROUND)


@check(2, "a K that is no multiple of 4, and fewer columns than consumers")
def test_columns(student):
    student.is_right(COLUMNS, SHORT)


@check(3, "the ring goes on from expert to expert")
def test_goes_on(student):
    student.is_right(GOES_ON)


@check(2, "empty experts, and no tokens at all")
def test_empty(student):
    student.is_right(GAPS, NO_TOKENS)


@check(3, "ragged cases: empty experts, single tokens, an odd K")
def test_ragged(student):
    student.is_right(*exercise.ragged(student.seed))


@check(4, "the checked simulator finds nothing: races, deadlocks, arrivals, bounds")
def test_clean(student):
    student.is_clean(ONE, AROUND, COLUMNS, GOES_ON, GAPS, schedules=SCHEDULES)
    student.is_clean(*exercise.cases(student.seed), schedules=(0,))


@check(2, "the copy engine reads x, no thread does, and every output is written once")
def test_reads(student):
    student.keeps_to(AROUND, COLUMNS, GOES_ON)
    for case in (AROUND, COLUMNS, GOES_ON):
        stores = student.run(case).outcome.accesses("y", "store")
        most = exercise.num_launches(case) * len(case.counts) * exercise.columns(case)
        if stores > most:
            what = f"y is written {stores} times in two launches, and {most} are enough, for {case}."
            likely = misconceptions.texts()["every-block-takes-all"]
            raise CheckFailedError(Feedback(what, likely=likely))


@check(1, "it compiles for a GPU, in float32 and integers")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.gpu_runner()
    cases = exercise.cases(student.seed)
    student.is_clean(*cases, schedules=(0,))  # why first: on a GPU a deadlock is a long wait and no message
    student.is_right(*cases, LONG, device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
