"""Grader of exercise 10.  `PLACES` and `TensorCores.want` are the oracle."""

import ml_dtypes
import numpy as np

from gemm_lessons.compare import tolerance
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import ALL_ARRAYS, GroupedExercise
from gemm_lessons.grading.judge import Wanted

MMA_M, MMA_N, MMA_K = 16, 8, 16
WARPS = 2
LARGE_FIRST = "a large term first"  # in a case's name: what its inputs are like
BFLOAT16 = ml_dtypes.bfloat16


def ceil_div(value, divisor):
    return -(-value // divisor)


def places(place, num_words):
    """A map as an array [32 * num_words, 2], all words of lane 0 first."""
    return np.array([place(lane, word) for lane in range(32) for word in range(num_words)])


# Where words lie, by the PTX manual, "Matrix Fragments for mma.m16n8k16", and where mistakes look for them.
PLACES = {
    "a_place": (4, "row", "k", lambda t, w: (t // 4 + w % 2 * 8, t % 4 * 2 + w // 2 * 8)),
    "b_place": (2, "n", "k", lambda t, w: (t // 4, t % 4 * 2 + w * 8)),
    "c_place": (4, "row", "n", lambda t, w: (t // 4 + w // 2 * 8, t % 4 * 2 + w % 2)),
}
MISTAKES = {
    "a_place": {
        "fragment-words-swapped": lambda t, w: (t // 4 + w // 2 * 8, t % 4 * 2 + w % 2 * 8),
        "second-half-row": lambda t, w: (t // 4, t % 4 * 2 + w // 2 * 8),
        "second-half-row (doubled)": lambda t, w: (t // 4 * 2 + w % 2, t % 4 * 2 + w // 2 * 8),
        "second-half-k": lambda t, w: (t // 4 + w % 2 * 8, t % 4 * 2),
        "lane-map": lambda t, w: (t % 8 + w % 2 * 8, t // 8 * 2 + w // 2 * 8),
        "pairs-not-doubled": lambda t, w: (t // 4 + w % 2 * 8, t % 4 + w // 2 * 8),
        "fragment-transposed": lambda t, w: (t % 4 * 2 + w % 2 * 8, t // 4 + w // 2 * 8),
        "fragments-swapped": lambda t, w: (t // 4, t % 4 * 2 + w % 2 * 8),
    },
    "b_place": {
        "second-half-k": lambda t, w: (t // 4, t % 4 * 2),
        "lane-map": lambda t, w: (t % 8, t // 8 * 2 + w * 8),
        "pairs-not-doubled": lambda t, w: (t // 4, t % 4 + w * 8),
        "fragment-transposed": lambda t, w: (t % 4 * 2, t // 4 + w * 8),
        "fragments-swapped": lambda t, w: (t // 4 + w * 8, t % 4 * 2),
        "k-before-n": lambda t, w: (t % 4 * 2 + w * 8, t // 4),
    },
    "c_place": {
        "second-half-row": lambda t, w: (t // 4, t % 4 * 2 + w % 2),
        "second-half-row (doubled)": lambda t, w: (t // 4 * 2 + w // 2, t % 4 * 2 + w % 2),
        "lane-map": lambda t, w: (t % 8 + w // 2 * 8, t // 8 * 2 + w % 2),
        "fragment-words-swapped": lambda t, w: (t // 4 + w % 2 * 8, t % 4 * 2 + w // 2),
        "pairs-not-doubled": lambda t, w: (t // 4 + w // 2 * 8, t % 4 + w % 2),
        "pairs-not-doubled (apart)": lambda t, w: (t // 4 + w // 2 * 8, t % 4 + w % 2 * 4),
        "fragment-transposed": lambda t, w: (t % 4 * 2 + w % 2 + w // 2 * 8, t // 4),
        "halves-exchanged": lambda t, w: (t // 4 + w // 2 * 8, t % 4 * 2 + 1 - w % 2),
    },
}


def wrong_places(function, key):
    """(right, wrong) places of the words of a fragment, with a common mistake."""
    num_words, *_, right = PLACES[function]
    return places(right, num_words), places(MISTAKES[function][key], num_words)


def misread(blocks, function, key):
    """What an instruction gets instead of blocks [rows, k, ...] if its words come from wrong places."""
    right, wrong = wrong_places(function, key)
    given = np.zeros_like(blocks)
    for half in range(2):
        k = np.minimum(wrong[:, 1] + half, blocks.shape[1] - 1)
        given[right[:, 0], right[:, 1] + half] = blocks[wrong[:, 0] % len(blocks), k]
    return given


class TensorCores(GroupedExercise):
    """Fragment maps and a main loop of mma.sync."""

    name = "ex10_tensor_cores"
    tile = (MMA_M, MMA_N)
    seconds = 10.0  # why so long: without tensor cores it takes its time, and must hear what is wrong
    output_dtype = "bfloat16"
    instructions = frozenset(("mma_m16n8k16", "pack", "unpack"))
    signatures = {
        "tensor_core_kernel": (
            "void(uint16[:, ::1], uint16[:, :, ::1], int32[:, ::1], uint16[:, ::1])",
        )
    }  # fmt: skip

    def cases(self, seed):
        return [ONE, STEPS, ROWS, COLUMNS, DEPTH, EXPERTS, SUMS, *self.ragged(seed)]

    def ragged(self, seed):
        """The ragged counts, of a dozen experts at most, with K of one step and a tail."""
        return [
            Case(case.counts[:12], case.N, MMA_K + case.K, case.name) for case in ragged(seed, MMA_M, MMA_N)
        ]

    def inputs(self, case, rng):
        x, w = (
            rng.standard_normal((case.total, case.K)),
            rng.standard_normal((len(case.counts), case.N, case.K)),
        )
        if LARGE_FIRST in case.name:
            # why: from 256 on, bfloat16 has every other whole number only, and a step adds less than 1
            x, w = rng.uniform(0.15, 0.25, x.shape), rng.uniform(0.15, 0.25, w.shape)
            x[:, 0], w[..., 0] = rng.choice((64, 80, 96, 112), case.total), 4
        return {"x": x.astype(BFLOAT16), "w": w.astype(BFLOAT16)}

    def sums(self, case, inputs, *, groups=None, ks=slice(None)):
        """Products in float64, [total, N]."""
        groups = case.groups if groups is None else groups
        x, w = inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)
        return np.einsum("rk,rnk->rn", x[:, ks], w[groups][:, :, ks])

    def want(self, case, inputs):
        y = self.sums(case, inputs)
        squares = {name: np.square(array.astype(np.float64)) for name, array in inputs.items()}
        return Wanted(y, tolerance(y, np.sqrt(self.sums(case, squares)), case.K, "bfloat16"))

    def alternatives(self, case, inputs):
        num_groups, full = len(case.counts), case.K // MMA_K * MMA_K
        halves = {name: array.view(np.float16).astype(np.float64) for name, array in inputs.items()}
        found = {
            "wrong-experts-weights": self.sums(case, inputs, groups=case.groups * 0),
            "wrong-experts-weights (next)": self.sums(case, inputs, groups=(case.groups + 1) % num_groups),
            "k-tail-dropped": self.sums(case, inputs, ks=slice(0, full)),
            "k-tail-dropped (half a pair)": self.sums(case, inputs, ks=slice(0, case.K // 2 * 2)),
            "one-step": self.sums(case, inputs, ks=slice(0, MMA_K)),
            "sum-not-kept": self.sums(case, inputs, ks=slice((case.K - 1) // MMA_K * MMA_K, None)),
            "sum-in-bfloat16": self.rounded_each_step(case, inputs),
            "float16-instruction": self.sums(case, halves),
            "float16-instruction (stored)": self.as_float16(case, inputs),
            "fragments-swapped (operands)": self.exchanged(case, inputs),
        }
        x, w = self.blocks(case, inputs)
        for function in ("a_place", "b_place"):
            for key in MISTAKES[function]:
                of_x = misread(x, function, key) if function == "a_place" else x
                of_w = misread(w, function, key) if function == "b_place" else w
                found[f"{key} ({function})"] = self.product(case, of_x, of_w)
        exchanged = x.reshape(MMA_M, MMA_K // 2, 2, *x.shape[2:])[:, :, ::-1].reshape(x.shape)
        return found | {"halves-exchanged (of x)": self.product(case, exchanged, w)}

    def rounded_each_step(self, case, inputs):
        """The sum with a bfloat16 for an accumulator."""
        total = np.zeros((case.total, case.N), BFLOAT16)
        for k in range(0, case.K, MMA_K):
            part = self.sums(case, inputs, ks=slice(k, k + MMA_K)).astype(np.float32)
            total = (total.astype(np.float32) + part).astype(BFLOAT16)
        return total.astype(np.float64)

    def as_float16(self, case, inputs):
        """The right sums, rounded to float16, with these bits taken for those of bfloat16."""
        return self.sums(case, inputs).astype(np.float16).view(BFLOAT16).astype(np.float64)

    def exchanged(self, case, inputs):
        """Tiles with w for A and x for B: row r of a tile is that of w, and column c that of x."""
        x, w = inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)
        y = np.zeros((case.total, case.N))
        for expert, first, end in tiles_of(case):
            for col in range(0, case.N, MMA_N):
                block = w[expert, col : col + MMA_M] @ x[first : min(first + MMA_N, end)].T
                into = y[first : min(first + MMA_M, end), col : col + MMA_N]
                part = block[: into.shape[0], : into.shape[1]]
                into[: part.shape[0], : part.shape[1]] = part
        return y

    def blocks(self, case, inputs):
        """x as [16, 16, tiles, steps of K], w as [8, 16, experts, columns / 8, steps of K]; zeros beyond."""
        steps, across = ceil_div(case.K, MMA_K), ceil_div(case.N, MMA_N)
        tiles = tiles_of(case)
        x = np.zeros((len(tiles) * MMA_M, steps * MMA_K))
        for i, (_, first, end) in enumerate(tiles):
            rows = min(end - first, MMA_M)
            x[i * MMA_M : i * MMA_M + rows, : case.K] = inputs["x"][first : first + rows]
        w = np.zeros((len(case.counts), across * MMA_N, steps * MMA_K))
        w[:, : case.N, : case.K] = inputs["w"]
        x = x.reshape(len(tiles), MMA_M, steps, MMA_K).transpose(1, 3, 0, 2)
        return x, w.reshape(len(w), across, MMA_N, steps, MMA_K).transpose(2, 4, 0, 1, 3)

    def product(self, case, x, w):
        """What comes out of blocks as above."""
        y = np.zeros((case.total, case.N))
        for i, (expert, first, end) in enumerate(tiles_of(case)):
            block = np.einsum("rks,nkjs->rjn", x[:, :, i], w[:, :, expert]).reshape(MMA_M, -1)
            rows = min(end - first, MMA_M)
            y[first : first + rows] = block[:rows, : case.N]
        return y

    def job(self, case, inputs, output):
        tiles = tiles_of(case)
        return {
            "kind": "kernel",
            "function": "tensor_core_kernel",
            "shape": [[len(tiles), ceil_div(case.N, WARPS * MMA_N)], 32 * WARPS],
            "arguments": [
                {"device": inputs["x"].view(np.uint16)},
                {"device": inputs["w"].view(np.uint16)},
                {"device": tiles},
                output,
            ],
        }

    def warp_tiles(self, case):
        """(least, most) tiles of 16 x 8: those that have outputs, and those that have a warp."""
        down = len(tiles_of(case))
        return down * ceil_div(case.N, MMA_N), down * WARPS * ceil_div(case.N, WARPS * MMA_N)

    def executions(self, case):
        least, most = self.warp_tiles(case)
        steps = ceil_div(case.K, MMA_K)
        return {"mma": (least * steps, most * steps)}

    def most_reads(self, case):
        values = (MMA_M + MMA_N) * ceil_div(case.K, MMA_K) * MMA_K
        threads = len(tiles_of(case)) * ceil_div(case.N, WARPS * MMA_N) * 32 * WARPS
        return {ALL_ARRAYS: self.warp_tiles(case)[1] * values + 8 * threads}  # why 8: they read tiles, too


def tiles_of(case):
    """Expert, first row and end of the expert for each tile of 16 rows, int32 [num_tiles, 3]."""
    ends = case.ends
    rows = [
        (expert, first, ends[expert])
        for expert, count in enumerate(case.counts)
        for first in range(ends[expert] - count, ends[expert], MMA_M)
    ]
    return np.array(rows, np.int32).reshape(-1, 3)


ONE = Case((16,), 16, 16, "one tile, one step of K")
STEPS = Case((32,), 16, 32, "one expert, two steps of K")
ROWS = Case((21,), 16, 16, "rows that 16 does not divide")
COLUMNS = Case((16,), 27, 16, "columns that 8 does not divide")
DEPTH = Case((16,), 16, 39, "an odd K")
EXPERTS = Case((16, 16, 16), 16, 16, "three experts, whole tiles")
SUMS = Case((7,), 9, 176, f"{LARGE_FIRST}, then many small ones")

exercise = TensorCores()


def asks_for_places(student, function):
    num_words, *names, right = PLACES[function]
    mistakes = {key: places(mistake, num_words) for key, mistake in MISTAKES[function].items()}
    student.places(function, num_words, places(right, num_words), tuple(names), mistakes)


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "a_place: every word of every lane")
def test_a(student):
    asks_for_places(student, "a_place")


@check(2, "b_place: every word of every lane")
def test_b(student):
    asks_for_places(student, "b_place")


@check(2, "c_place: every word of every lane")
def test_c(student):
    asks_for_places(student, "c_place")


@check(2, "one tile, one mma for each warp")
def test_one_tile(student):
    student.is_right(ONE)


@check(2, "several steps of K and several tiles")
def test_steps(student):
    student.is_right(STEPS)


@check(2, "ragged rows and columns")
def test_edges(student):
    student.is_right(ROWS, COLUMNS)


@check(2, "an odd K")
def test_depth(student):
    student.is_right(DEPTH)


@check(2, "several experts")
def test_experts(student):
    student.is_right(EXPERTS)


@check(2, "sums are float32, and rounded once")
def test_sums(student):
    student.is_right(SUMS)


@check(3, "ragged cases: empty experts, single tokens, an odd N and K")
def test_ragged(student):
    student.is_right(*exercise.ragged(student.seed))


@check(3, "the checked simulator finds nothing: bounds, races, lanes that are missing")
def test_clean(student):
    # why one schedule: nothing is shared, so the order of threads changes nothing
    student.is_clean(*exercise.cases(student.seed), schedules=(0,))


@check(2, "tensor cores do the work: one mma for each tile and 16 of K, and no read too many")
def test_counts(student):
    student.executes(ONE, STEPS, COLUMNS, DEPTH)
    student.keeps_to(ONE, STEPS, COLUMNS, DEPTH)


@check(1, "it compiles for a GPU, in float32 and integers")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((90, 0, 1, 31), 70, 137, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
