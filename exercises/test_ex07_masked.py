"""Grader of exercise 07.  `Masked.want` is the oracle."""

import numpy as np

from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.feedback import CheckFailedError, Feedback
from gemm_lessons.grading.judge import wanted

ARRIVAL = "in order of arrival"  # names of cases say how slots are filled
HOLES = "holes"
FULL = "full"
WRONG_COUNTS = "counts beyond the capacity"


def capacity_of(case):
    longest = max(case.counts, default=0)
    return max(longest if case.name.startswith(FULL) else longest + 3, 1)


def left_out(sums, rows):
    """The sums, with NaN in rows that a mistake leaves unwritten."""
    return np.where(rows[:, None], np.nan, sums)


class Masked(GroupedExercise):
    """Gather, multiply and scatter, with counts on the device."""

    name = "ex07_masked"
    tile = (4, 16)
    signatures = {
        "masked_kernel": (
            "void(float32[:, ::1], float32[:, :, ::1], int32[:, ::1], int32[::1], float32[:, ::1])",
        )
    }

    def cases(self, seed):
        more = [
            Case(case.counts, case.N, case.K, f"{HOLES}: {case.name}") for case in ragged(seed, *self.tile)
        ]
        return [ONE, SEVERAL, HOLE, MIXED, ALL, BROKEN, *more]

    def inputs(self, case, rng):
        """Tokens are dealt to slots at random; beyond the slots in use stand tokens of an earlier routing."""
        found = super().inputs(case, rng)
        capacity, num_experts = capacity_of(case), len(case.counts)
        experts = case.groups.copy()
        if ARRIVAL in case.name:
            rng.shuffle(experts)
        token_of = rng.integers(0, max(case.total, 1), (num_experts, capacity)).astype(np.int32)
        used = np.array(case.counts, np.int32)
        for expert in range(num_experts):
            tokens = rng.permutation(np.flatnonzero(experts == expert))
            holes = min(2, capacity - len(tokens)) if case.name.startswith((HOLES, ARRIVAL)) else 0
            used[expert] += holes
            slots = np.sort(rng.permutation(int(used[expert]))[: len(tokens)])
            token_of[expert, : used[expert]] = -1
            token_of[expert, slots] = tokens
        if case.name.startswith(WRONG_COUNTS):
            token_of[-2, :] = -1
            used[-2:] = capacity, capacity + 5
            token_of[-1, case.counts[-1] :] = -1
            nobody = case.counts.index(0)
            used[nobody] = -4
            # why these: whichever of two blocks writes a row last, one of the rows shows that -4 was used
            token_of[nobody, :2] = np.flatnonzero(experts == 0)[0], np.flatnonzero(experts > nobody)[-1]
        return found | {"token_of": token_of, "used": used, "experts": experts}

    def sums(self, case, inputs, experts=None, rows=None):
        """x @ w[expert of each token].T in float64."""
        experts = inputs["experts"] if experts is None else experts
        x = inputs["x"].astype(np.float64)
        return np.einsum(
            "rk,rnk->rn", x if rows is None else x[rows], inputs["w"].astype(np.float64)[experts]
        )

    def want(self, case, inputs):
        squares = inputs | {name: np.square(inputs[name].astype(np.float64)) for name in ("x", "w")}
        return wanted(self.sums(case, inputs), np.sqrt(self.sums(case, squares)), case.K)

    def alternatives(self, case, inputs):
        experts, num_experts = inputs["experts"], len(case.counts)
        token_of = inputs["token_of"]
        slots = np.zeros(case.total, int)
        for expert in range(num_experts):
            for slot, token in enumerate(token_of[expert, : max(inputs["used"][expert], 0)]):
                if token >= 0:
                    slots[token] = slot
        rows = np.minimum(slots, max(case.total - 1, 0))
        right = self.sums(case, inputs)
        after_a_hole = np.array(
            [(token_of[expert, :slot] < 0).any() for expert, slot in zip(experts, slots, strict=True)], bool
        )
        whole_blocks = capacity_of(case) // self.tile[0] * self.tile[0]
        return {
            "hole-ends-slab": left_out(right, after_a_hole),
            "last-expert-missing": left_out(right, experts == num_experts - 1),
            "grid-rounded-down": left_out(right, slots >= whole_blocks),
            "weights of the first expert": self.sums(case, inputs, experts * 0),
            "weights of the next expert": self.sums(case, inputs, (experts + 1) % num_experts),
            "slot taken for the token": self.sums(case, inputs, rows=rows),
            "last k missing": right
            - inputs["x"][:, -1:].astype(np.float64) * inputs["w"].astype(np.float64)[experts][:, :, -1],
        }

    def job(self, case, inputs, output):
        return {
            "kind": "kernel",
            "function": "masked_kernel",
            "shape_function": "launch_shape",
            "shape_arguments": [len(case.counts), capacity_of(case), case.N],
            "arguments": [*({"device": inputs[name]} for name in ("x", "w", "token_of", "used")), output],
        }

    def most_reads(self, case):
        terms = case.total * case.N * case.K
        return {"x": terms, "w": terms, "y": 0}


ONE = Case((5,), 16, 4, "one expert, no holes")
SEVERAL = Case((4, 1, 6), 21, 5, "three experts, no holes")
HOLE = Case((4, 0, 3), 18, 3, f"{HOLES}, and an expert without tokens")
MIXED = Case((3, 7, 2), 17, 6, f"{ARRIVAL}, with holes")
ALL = Case((6, 6), 16, 5, f"{FULL}: every slot is in use")
BROKEN = Case((2, 0, 0, 6), 17, 4, WRONG_COUNTS)

exercise = Masked()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "one expert, no holes")
def test_one_expert(student):
    student.is_right(ONE)


@check(2, "several experts, ragged edges")
def test_experts(student):
    student.is_right(SEVERAL)


@check(3, "holes, and experts without tokens")
def test_holes(student):
    student.is_right(HOLE)


@check(2, "tokens in order of arrival")
def test_arrival(student):
    student.is_right(MIXED)


@check(2, "every slot in use")
def test_full(student):
    student.is_right(ALL)


@check(3, "counts that are negative or beyond the capacity")
def test_broken_counts(student):
    student.is_right(BROKEN)


@check(3, "ragged cases with holes")
def test_ragged(student):
    student.is_right(*exercise.cases(student.seed)[6:])


@check(3, "the checked simulator finds nothing: bounds, races, uninitialised memory")
def test_clean(student):
    student.is_clean(*exercise.cases(student.seed))


@check(2, "every output is written once, and nothing else")
def test_once(student):
    for case in (SEVERAL, HOLE, MIXED, ALL):
        student.is_right(case)
        stores, most = student.run(case).outcome.accesses("y", "store"), case.total * case.N
        if stores > most:
            what = f"y is written {stores} times, and {most} are enough, for {case}."
            look = "Which slots are computed: also those that are not in use?"
            raise CheckFailedError(student.explained(Feedback(what, look=look)))


@check(1, "reads of global memory are within the budget")
def test_traffic(student):
    student.keeps_to(SEVERAL, HOLE, ALL)


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((300, 0, 1, 77), 130, 65, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
