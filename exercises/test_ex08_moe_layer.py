"""Grader of exercise 08.  `MoeLayer.answer` is the oracle and, with one thing changed, a known mistake."""

import numpy as np

from gemm_lessons.grading import misconceptions
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.feedback import CheckFailedError, Feedback
from gemm_lessons.grading.judge import wanted

TIES = "ties"  # names of cases say how scores are drawn
GARBAGE = 12345  # what stands in arrays that the submission must fill
SCHEDULES = range(5)


def choices(values):
    """First and second choice of each token, the lower number first among equals."""
    return np.argsort(-values, axis=1, kind="stable")[:, :2]


class MoeLayer(GroupedExercise):
    """Choose, count, scan, place, gather and scatter."""

    name = "ex08_moe_layer"
    tile = (4, 8)
    seconds = 6.0
    signatures = {
        "choose_kernel": ("void(float32[:, ::1], float32[::1], int32[:, ::1], float32[:, ::1])",),
        "count_kernel": ("void(int32[:, ::1], int32[::1])",),
        "scan_kernel": ("void(int32[::1], int64, int32[::1])",),
        "place_kernel": ("void(int32[:, ::1], int32[::1], int32[:, ::1])",),
        "gather_kernel": ("void(float32[:, ::1], int32[:, ::1], float32[:, ::1])",),
        "expert_kernel": ("void(int32[::1], float32[:, ::1])",),
        "scatter_kernel": (
            "void(float32[:, ::1], int32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1])",
        ),
    }

    def cases(self, seed):
        return [ROOM, EQUAL, TIGHT, CROWD, *ragged(seed, 5, 8)]

    def output_case(self, case):
        return Case((case.total,), case.N, case.K)  # rows of y are tokens, whoever computes them

    def inputs(self, case, rng):
        """One expert suits each token best, by the case's counts, but the bias may say otherwise."""
        num_experts = max(len(case.counts), 2)
        if case.name.startswith(TIES):  # eighths add up exactly, so that many sums are equal
            scores = rng.integers(2, 5, (case.total, num_experts)) / 8
            bias = rng.integers(-1, 2, num_experts) / 8
        else:
            scores = rng.uniform(0.05, 0.5, (case.total, num_experts))
            scores[np.arange(case.total), rng.permutation(case.groups)] += 0.5
            bias = rng.uniform(-0.3, 0.3, num_experts)
        return {
            "scores": scores.astype(np.float32),
            "bias": bias.astype(np.float32),
            "x": rng.standard_normal((case.total, case.N), dtype=np.float32),
        }

    def answer(
        self,
        case,
        inputs,
        *,
        experts=None,
        weights=None,
        capacity=None,
        order=None,
        rest="x",
        divide="kept",
        adds=1,
    ):
        """y in float64, and the root of its squared terms.

        Args:
            case: K is the capacity.
            inputs: scores, bias and x.
            experts: choices, if not the right ones.
            weights: of the chosen, if not the right ones.
            capacity: if not the right one.
            order: the slots (token, choice) in the order in which they are served.
            rest: what becomes of a token without a row: "x", or "zero".
            divide: by the weights that were "kept", by those of "both" choices, or by "nothing".
            adds: what becomes of a first row when a second one comes.
        """
        scores, x = inputs["scores"], inputs["x"].astype(np.float64)
        experts = choices(scores + inputs["bias"]) if experts is None else experts
        weights = np.take_along_axis(scores, experts, axis=1) if weights is None else weights
        weights = weights.astype(np.float64)
        capacity = case.K if capacity is None else capacity
        order = [(t, j) for j in range(2) for t in range(case.total)] if order is None else order
        places, taken = np.full(experts.shape, -1), np.zeros(scores.shape[1], int)
        for token, choice in order:
            expert = experts[token, choice]
            if taken[expert] < capacity:
                places[token, choice] = taken[expert]
                taken[expert] += 1
        kept = np.where(places >= 0, weights, 0)
        rows = (experts + 1)[:, :, np.newaxis] * x[:, np.newaxis], np.maximum(places, 0)[:, :, np.newaxis]
        divisors = {"kept": kept, "both": weights, "nothing": np.ones((case.total, 1))}
        total = divisors[divide].sum(axis=1)
        passes = kept.sum(axis=1) == 0
        kept[:, 0] *= np.where(kept[:, 1] > 0, adds, 1)
        share = kept / np.where(passes, 1, total)[:, np.newaxis]
        y = (share[:, :, np.newaxis] * (rows[0] + rows[1])).sum(axis=1)
        squares = (np.square(share)[:, :, np.newaxis] * (np.square(rows[0]) + np.square(rows[1]))).sum(axis=1)
        if rest == "x":
            y[passes] = x[passes]
        return y, np.sqrt(squares)

    def want(self, case, inputs):
        # why 8: two products and sums for each of two rows, their weights, and a division
        return wanted(*self.answer(case, inputs), 8)

    def alternatives(self, case, inputs):
        scores, bias = inputs["scores"], inputs["bias"]
        biased = scores + bias
        right = choices(biased)
        tokens = range(case.total)
        highest = scores.shape[1] - 1 - choices(biased[:, ::-1])
        changes = {
            "bias-in-weight": {"weights": np.take_along_axis(biased, right, axis=1)},
            "choice-without-bias": {"experts": choices(scores)},
            "ties-to-highest": {"experts": highest},
            "expert-twice": {"experts": right[:, [0, 0]]},
            "last-row-wins": {"adds": 0},
            "capacity-ignored": {"capacity": 2 * case.total},
            "one-row-too-many": {"capacity": case.K + 1},
            "one-row-too-few": {"capacity": case.K - 1},
            "second-choices-too-early": {"order": [(t, j) for t in tokens for j in range(2)]},
            "rows-in-reverse": {"order": [(t, j) for j in range(2) for t in reversed(tokens)]},
            "weights-not-renormalised": {"divide": "nothing"},
            "dropped-share-kept": {"divide": "both"},
            "dropped-token-lost": {"rest": "zero"},
            "weights-ignored": {"weights": np.ones(right.shape)},
            "weights-swapped": {"weights": np.take_along_axis(scores, right[:, ::-1], axis=1)},
        }
        return {name: self.answer(case, inputs, **change)[0] for name, change in changes.items()}

    def job(self, case, inputs, output):
        num_tokens, num_experts = inputs["scores"].shape
        scratch = {
            "experts": np.full((num_tokens, 2), GARBAGE, np.int32),
            "weights": np.full((num_tokens, 2), np.nan, np.float32),
            "counts": np.zeros(num_experts, np.int32),
            "offsets": np.full(num_experts + 1, GARBAGE, np.int32),
            "row_of": np.full((num_tokens, 2), GARBAGE, np.int32),
            "rows": np.full((2 * num_tokens, case.N), np.nan, np.float32),
        }
        given = [{"device": inputs[name]} for name in ("scores", "bias", "x")]
        return {
            "kind": "launcher",
            "function": "layer",
            "arguments": [{"host": case.K}, *given, *({"device": each} for each in scratch.values()), output],
        }

    def num_launches(self, case):
        return 7 if case.total else 0


ROOM = Case((4, 2, 5), 5, 30, "every expert has room for all")
EQUAL = Case((9, 5, 3, 2), 3, 21, f"{TIES}: many sums are equal")
TIGHT = Case((3, 9, 2, 4), 4, 6, "little room")
CROWD = Case((11, 1), 3, 4, "most tokens get no row at all")

exercise = MoeLayer()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(3, "there and back, with room for all")
def test_room(student):
    student.is_right(ROOM)


@check(2, "equal scores: the expert with the lower number")
def test_ties(student):
    student.is_right(EQUAL)


@check(3, "little room: first choices before second ones")
def test_capacity(student):
    student.is_right(TIGHT)


@check(2, "tokens that no expert has room for")
def test_crowd(student):
    student.is_right(CROWD)


@check(3, "ragged cases: experts that nobody wants, single tokens")
def test_ragged(student):
    student.is_right(*exercise.cases(student.seed)[4:])


@check(3, "the same rows in every order of threads")
def test_same_rows(student):
    student.keeps_the_rules()
    for case in (TIGHT, ROOM):
        runs = [student.run(case, schedule=schedule) for schedule in SCHEDULES]
        results = {run.judgement.got.tobytes() for run in runs if run.judgement is not None}
        if len(results) > 1 and not any(run.outcome.findings for run in runs):
            what = f"y depends on which thread is first, for {case}."
            where = f"{len(SCHEDULES)} orders of threads give {len(results)} different results."
            likely = misconceptions.texts()["order-by-arrival"]
            raise CheckFailedError(Feedback(what, where, likely=likely))
        student.is_right(case)


@check(4, "the checked simulator finds nothing: races, bounds, memory that nobody wrote")
def test_clean(student):
    student.is_clean(*exercise.cases(student.seed))


@check(2, "every output is written once, and every row once by gather")
def test_once(student):
    for case in (TIGHT, CROWD):
        student.is_right(case)
        outcome = student.run(case).outcome
        stores = outcome.accesses("y", "store"), outcome.accesses("rows", "store")
        experts = choices(np.add(*(student.run(case).inputs[name] for name in ("scores", "bias"))))
        num_rows = int(np.minimum(np.bincount(experts.reshape(-1)), case.K).sum())
        for name, made, most in (
            ("y", stores[0], case.total * case.N),
            ("rows", stores[1], 2 * num_rows * case.N),  # gather and expert_kernel
        ):
            if made > most:
                what = f"{name} is written {made} times, and {most} are enough, for {case}."
                raise CheckFailedError(student.explained(Feedback(what)))


@check(1, "it compiles for a GPU, all in float32")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((300, 0, 1, 77), 130, 65, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
