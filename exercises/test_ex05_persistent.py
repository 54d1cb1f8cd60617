"""Grader of exercise 05.  `Persistent.want` is the oracle."""

import numpy as np

from gemm_lessons.grading import misconceptions
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.feedback import CheckFailedError, Feedback
from gemm_lessons.grading.judge import wanted

BM = BN = 8
TICKET = 3
NUM_RESIDENT = 8  # virtual SMs of the simulator; a GPU holds more
ONCE, THRICE = "launched once", "launched three times"


def num_tiles(case):
    return sum(-(-count // BM) for count in case.counts) * -(-case.N // BN)


def num_tickets(case):
    return -(-num_tiles(case) // TICKET)


class Persistent(GroupedExercise):
    """The work loop."""

    name = "ex05_persistent"
    tile = (BM, BN)
    seconds = 6.0
    signatures = {
        "work_loop": (
            "void(float32[:, ::1], float32[:, :, ::1], int32[::1], int32[::1], int32[::1], float32[:, ::1])",
        )
    }

    def cases(self, seed):
        return [FIRST, MANY, AGAIN, WHOLE, *ragged(seed, BM, BN)]

    def sums(self, case, inputs, experts=None):
        """x @ w[expert of each row].T in float64."""
        experts = case.groups if experts is None else experts
        return np.einsum(
            "rk,rnk->rn", inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)[experts]
        )

    def want(self, case, inputs):
        squares = {name: np.square(array.astype(np.float64)) for name, array in inputs.items()}
        return wanted(self.sums(case, inputs), np.sqrt(self.sums(case, squares)), case.K)

    def job(self, case, inputs, output):
        tiles = [-(-count // BM) * -(-case.N // BN) for count in case.counts]
        return {
            "kind": "kernel",
            "function": "work_loop",
            "times": self.num_launches(case),
            "shape_function": "launch_shape",
            "shape_arguments": [num_tiles(case), NUM_RESIDENT],
            "arguments": [
                {"device": inputs["x"]},
                {"device": inputs["w"]},
                {"device": case.ends},
                {"device": np.cumsum(tiles).astype(np.int32)},
                {"device": np.zeros(2, np.int32)},
                output,
            ],
        }

    def num_launches(self, case):
        return 1 if case.name.endswith(ONCE) else 3 if case.name.endswith(THRICE) else 2


FIRST = Case((8, 3), 8, 4, f"two tiles, {ONCE}")
MANY = Case((40, 20), 32, 3, f"more tickets than blocks, {ONCE}")
AGAIN = Case((21, 9), 24, 3, f"ragged rows, {THRICE}")
WHOLE = Case((24, 24), 24, 2, "every ticket is full")

exercise = Persistent()


def known(key):
    return misconceptions.texts()[key]


def launched(student, case):
    """The run on a case, which must be right: only then does anything else count."""
    student.is_right(case)
    return student.run(case)


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "one launch, one ticket")
def test_first(student):
    student.is_right(FIRST)


@check(2, "more tickets than blocks")
def test_many(student):
    student.is_right(MANY)


@check(3, "launched again, with counters that nobody resets in between")
def test_again(student):
    student.is_right(AGAIN, WHOLE)


@check(3, "ragged cases: empty experts, single tokens")
def test_ragged(student):
    student.is_right(*ragged(student.seed, *exercise.tile))


@check(4, "the checked simulator finds nothing: races, barriers, bounds")
def test_clean(student):
    student.is_clean(*exercise.cases(student.seed))


@check(2, "resident blocks only, and as many as have something to do")
def test_resident(student):
    for case in (MANY, FIRST, WHOLE):
        run = launched(student, case)
        blocks, wanted_blocks = (
            int(np.prod(run.outcome.launches[0]["grid"])),
            min(num_tickets(case), NUM_RESIDENT),
        )
        if blocks != wanted_blocks:
            what = f"{blocks} blocks are launched, and {wanted_blocks} are right, for {case}."
            where = f"{NUM_RESIDENT} blocks are resident, and there are {num_tickets(case)} tickets."
            too_many = "not-resident" if blocks > NUM_RESIDENT else "idle-blocks"
            likely = known("too-few-blocks" if blocks < wanted_blocks else too_many)
            raise CheckFailedError(Feedback(what, where, likely=likely))


@check(2, "every output is written once")
def test_once(student):
    for case in (MANY, AGAIN):
        launched(student, case)
        # why several: a counter that is set back too early hands out tickets again in some orders only
        runs = [student.run(case, schedule=schedule) for schedule in range(4)]
        stores = [run.outcome.accesses("y", "store") for run in runs]
        most = case.total * case.N * exercise.num_launches(case)
        if max(stores) > most:
            what = (
                f"y is written {max(stores)} times, and {most} are enough, for {case}: tiles are done again."
            )
            where = f"In four orders of blocks, {', '.join(map(str, stores))} times."
            likely = known("ticket-taken-for-tile" if len(set(stores)) == 1 else "reset-too-early")
            raise CheckFailedError(Feedback(what, where, likely=likely))


@check(2, "a ticket for three tiles, drawn by one thread of a block")
def test_tickets(student):
    for case in (MANY, WHOLE):
        run = launched(student, case)
        blocks = int(np.prod(run.outcome.launches[0]["grid"]))
        draws = num_tickets(case) + blocks
        least = draws * exercise.num_launches(case)
        most = (draws + 2 * blocks + 4) * exercise.num_launches(case)
        made = run.outcome.accesses("counters", "atomic")
        if not least <= made <= most:
            what = f"counters are used atomically {made} times, and {least} to {most} are right, for {case}."
            where = (
                f"{num_tickets(case)} tickets, {blocks} blocks that each draw one too many, and the reset."
            )
            likely = known("lesson-copied" if made > most else "dealt-not-drawn")
            raise CheckFailedError(Feedback(what, where, likely=likely))


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((300, 0, 1, 77), 130, 65, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
