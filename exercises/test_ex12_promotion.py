"""Grader of exercise 12.  `Promotion.promoted` is the oracle: to the last bit up to the partial sums."""

import numpy as np

from gemm_lessons.compare import WGMMA_E4M3_BITS
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.judge import wanted
from gemm_lessons.measure.fp8_error import keep_bits
from gemm_lessons.problem import Inputs
from gemm_lessons.quantize import quantize_inputs, turn_scales, with_unit_scales

BLOCK, STEP = 128, 32
STEPS = BLOCK // STEP
ROWS, COLUMNS, WARP = 16, 16, 32
UNIT, ZEROS, MANY = "every scale is 1", "blocks of zeros", "twelve binades"  # in names: what inputs are like


def ceil_div(value, divisor):
    return -(-value // divisor)


def cut(values):
    """What the tensor core keeps of a float32."""
    return keep_bits(values, WGMMA_E4M3_BITS)


class Promotion(GroupedExercise):
    """Partial sums of few bits, moved to float32 with their scales."""

    name = "ex12_promotion"
    tile = (ROWS, COLUMNS)
    seconds = 10.0
    instructions = frozenset(("as_float32", "as_word"))
    signatures = {
        "promoted_kernel": (
            "void(float32[:, ::1], float32[:, ::1], float32[:, :, ::1], float32[:, :, ::1], int32[:, ::1],"
            " float32[:, ::1])",
        )
    }

    def cases(self, seed):
        return [ONE, BLOCKS, LONG, TAIL, SHORT, FEATURES, EXPERTS, ZERO, BINADES, *self.ragged(seed)]

    def ragged(self, seed):
        """The ragged counts, of a dozen experts at most, with K of one block and a tail."""
        return [Case(case.counts[:12], case.N, BLOCK + case.K, case.name) for case in ragged(seed, ROWS, 2)]

    def inputs(self, case, rng):
        x = rng.standard_normal((case.total, case.K))
        w = rng.standard_normal((len(case.counts), case.N, case.K))
        if case.name.endswith(UNIT):  # why positive: sums grow with K, and so does what they lose
            quantized = with_unit_scales(Inputs(*(np.abs(a).astype("float8_e4m3fn") for a in (x, w))))
        else:
            power = 6 if MANY in case.name else 2
            blocks = ceil_div(case.K, BLOCK)
            sizes = [
                np.exp2(rng.integers(-power, power + 1, (*a.shape[:-1], blocks))) for a in (x, w[:, ::BLOCK])
            ]
            if ZEROS in case.name:
                sizes = [size * (rng.random(size.shape) < 0.6) for size in sizes]
            x *= sizes[0].repeat(BLOCK, axis=-1)[..., : case.K]
            w *= sizes[1].repeat(BLOCK, axis=1)[:, : case.N].repeat(BLOCK, axis=-1)[..., : case.K]
            quantized = quantize_inputs(Inputs(x.astype(np.float32), w.astype(np.float32)))
        return {
            "x": quantized.x.values.astype(np.float32),
            "x_scales": turn_scales(quantized.x.scales),
            "w": quantized.w.values.astype(np.float32),
            "w_scales": quantized.w.scales,
        }

    def partial(self, case, inputs, begins, groups=None):
        """The sums as the tensor core keeps them, after each step of 32: float32 [steps, total, N].

        Args:
            case: the case.
            inputs: of it.
            begins: says of a step's number whether it begins new sums.
            groups: expert of each row.
        """
        x, w = inputs["x"], inputs["w"][case.groups if groups is None else groups]
        found, total = [], np.zeros((case.total, case.N), np.float32)
        for step in range(ceil_div(case.K, STEP)):
            if begins(step):
                total = np.zeros_like(total)
            for k in range(step * STEP, min((step + 1) * STEP, case.K)):
                total = total + x[:, [k]] * w[..., k]
            total = cut(total)
            found.append(total)
        return np.array(found)

    def scales(self, case, inputs, groups=None):
        """The scales of x [blocks, total, 1] and of w [blocks, total, N], float64."""
        of_x = inputs["x_scales"][:, : case.total, np.newaxis].astype(np.float64)
        of_w = inputs["w_scales"].repeat(BLOCK, axis=1)[:, : case.N].astype(np.float64)
        return of_x, of_w[case.groups if groups is None else groups].transpose(2, 0, 1)

    def promoted(self, case, inputs, *, every=STEPS, keep=None, scales=None, groups=None):
        """The terms that are promoted, float64 [promotions, total, N].

        Args:
            case: the case.
            inputs: of it.
            every: steps of a partial sum.
            keep: says of a step's number whether it goes on with the old sums, if `every` does not say it.
            scales: of x and w, as `scales` gives them.
            groups: expert of each row, for w alone.
        """
        steps = ceil_div(case.K, STEP)
        begins = (lambda step: step % every == 0) if keep is None else (lambda step: not keep(step))
        sums = self.partial(case, inputs, begins, groups)
        of_x, of_w = self.scales(case, inputs) if scales is None else scales
        lasts = [min(first + every, steps) - 1 for first in range(0, steps, every)]
        return np.array([sums[last] * of_x[last // STEPS] * of_w[last // STEPS] for last in lasts])

    def want(self, case, inputs):
        terms = self.promoted(case, inputs)
        spread = np.sqrt(np.square(terms).sum(axis=0))
        return wanted(terms.sum(axis=0), spread, len(terms) + 2)  # why 2: both scales are rounded, too

    def alternatives(self, case, inputs):
        of_x, of_w = self.scales(case, inputs)
        one = np.ones_like(of_x)
        blocks, N, groups = len(of_x), case.N, case.groups
        right = self.promoted(case, inputs)
        steps = ceil_div(case.K, STEP)

        def y(**how):
            return self.promoted(case, inputs, **how).sum(axis=0)

        def with_scales(new_x=of_x, new_w=of_w):
            return y(scales=(new_x, new_w))

        def rows(wrong):
            """With the scales of x of other rows."""
            return with_scales(of_x[:, np.clip(wrong, 0, case.total - 1)])

        def halves(lower):
            """With the scales of x of a lane's upper row, or of its lower one; 0 behind the expert's end."""
            row = (firsts + in_tile % 8)[:, np.newaxis] + 8 * lower
            there = row < ends[:, np.newaxis]
            return with_scales(np.where(there, of_x[:, np.minimum(row, case.total - 1), 0], 0))

        def columns(wrong):
            wrong = np.minimum(wrong, inputs["w_scales"].shape[1] - 1)
            return with_scales(new_w=inputs["w_scales"][groups][:, wrong].transpose(2, 0, 1))

        first = [0] * blocks
        following, before = [*range(1, blocks), blocks - 1], [0, *range(blocks - 1)]
        firsts = np.repeat([first for _, first, _ in tiles_of(case)], [n for *_, n in self.heights(case)])
        in_tile = np.arange(case.total) - firsts
        ends = case.ends[groups]
        firsts_scales = self.scales(case, inputs, groups * 0)
        unscaled = self.promoted(case, inputs, scales=(one, np.ones_like(of_w)))
        return {
            "promoted-too-rarely (once)": y(every=steps),
            "promoted-too-rarely (first scales)": y(every=steps, scales=(of_x[first], of_w[first])),
            "promoted-too-rarely (256)": y(every=2 * STEPS),
            "promoted-too-often (32)": y(every=1),
            "promoted-too-often (64)": y(every=2),
            "promoted-again": y(keep=lambda step: step > 0),
            "promoted-twice (each step)": y(every=1, keep=lambda step: step % STEPS > 0),
            "promoted-twice (last)": right.sum(axis=0) + right[-1],
            "promoted-twice (all)": 2 * right.sum(axis=0),
            "sum-not-kept (steps)": y(keep=lambda step: False),
            "sum-not-kept (blocks)": right[-1],
            "last-not-promoted": right[:-1].sum(axis=0),
            "k-tail-dropped (block)": right[: case.K // BLOCK].sum(axis=0),
            "k-tail-dropped (step)": self.without_step_tail(case, inputs),
            "scale-of-wrong-block (next of x)": with_scales(of_x[following]),
            "scale-of-wrong-block (next of w)": with_scales(new_w=of_w[following]),
            "scale-of-wrong-block (first of x)": with_scales(of_x[first]),
            "scale-of-wrong-block (first of w)": with_scales(new_w=of_w[first]),
            "scale-of-wrong-block (both next)": with_scales(of_x[following], of_w[following]),
            "scale-of-wrong-block (both before)": with_scales(of_x[before], of_w[before]),
            "scale-once (last)": unscaled.sum(axis=0) * of_x[-1] * of_w[-1],
            "scale-once (first)": unscaled.sum(axis=0) * of_x[0] * of_w[0],
            "scale-missing (of x)": with_scales(one),
            "scale-missing (of w)": with_scales(new_w=np.ones_like(of_w)),
            "scale-missing (both)": unscaled.sum(axis=0),
            "inverse-scale (of both)": with_scales(1 / of_x, 1 / of_w),
            "inverse-scale (of w)": with_scales(new_w=1 / of_w),
            "scaled-again": self.scaled_again(right, of_x, of_w),
            "scale-of-other-row (upper)": halves(np.zeros(N, int)),
            "scale-of-other-row (swapped)": halves((in_tile < 8)[:, np.newaxis]),
            "scale-of-other-row (odd columns)": halves(np.arange(N) % 2),
            "scale-of-other-row (second eight columns)": halves(np.arange(N) // 8 % 2),
            "scale-of-other-row (within the tile)": rows(in_tile),
            "scale-of-other-row (first of the tile)": rows(firsts),
            "weights-block-first": columns(np.zeros(N, int)),
            "tile-for-block": columns(np.arange(N) // COLUMNS),
            "wrong-experts-weights": y(groups=groups * 0, scales=firsts_scales),
            "wrong-experts-weights (scales)": y(scales=firsts_scales),
            "wrong-experts-weights (values)": y(groups=groups * 0),
            "no-tensor-cores": self.exact(case, inputs),
            "total-cut": self.cut_again(right),
        }  # fmt: skip

    def heights(self, case):
        """(expert, first row, rows) of each tile."""
        return [(expert, first, min(ROWS, end - first)) for expert, first, end in tiles_of(case)]

    def without_step_tail(self, case, inputs):
        """Without the products behind the last whole step."""
        full = {"x": inputs["x"].copy()}
        full["x"][:, case.K // STEP * STEP :] = 0
        return self.promoted(case, inputs | full).sum(axis=0)

    def scaled_again(self, right, of_x, of_w):
        """What has been promoted is scaled again with each block."""
        total = np.zeros(right.shape[1:])
        for term, scale in zip(right, of_x * of_w, strict=True):
            total = total * scale + term
        return total

    def exact(self, case, inputs):
        """Sums that no bit is dropped from."""
        x, w = inputs["x"].astype(np.float64), inputs["w"].astype(np.float64)[case.groups]
        of_x, of_w = self.scales(case, inputs)
        total = np.zeros((case.total, case.N))
        for block, k in enumerate(range(0, case.K, BLOCK)):
            products = np.einsum("rk,rnk->rn", x[:, k : k + BLOCK], w[..., k : k + BLOCK])
            total += products * of_x[block] * of_w[block]
        return total

    def cut_again(self, right):
        """What has been promoted is kept in as few bits."""
        total = np.zeros(right.shape[1:], np.float32)
        for term in right:
            total = cut(total + term.astype(np.float32))
        return total.astype(np.float64)

    def job(self, case, inputs, output):
        tiles = tiles_of(case)
        arrays = [inputs[name] for name in ("x", "x_scales", "w", "w_scales")]
        return {
            "kind": "kernel",
            "function": "promoted_kernel",
            "shape": [[len(tiles), ceil_div(case.N, COLUMNS)], WARP],
            "arguments": [*({"device": array} for array in [*arrays, tiles]), output],
        }

    def most_reads(self, case):
        warps = len(tiles_of(case)) * ceil_div(case.N, COLUMNS)
        of_w = warps * WARP * ceil_div(case.K, BLOCK)
        return {"x_scales": 2 * of_w, "w_scales": of_w, "y": 0}


def tiles_of(case):
    """Expert, first row and end of the expert for each tile of 16 rows, int32 [num_tiles, 3]."""
    ends = case.ends
    rows = [
        (expert, first, ends[expert])
        for expert, count in enumerate(case.counts)
        for first in range(ends[expert] - count, ends[expert], ROWS)
    ]
    return np.array(rows, np.int32).reshape(-1, 3)


ONE = Case((11,), 16, BLOCK, "one tile, one block of K")
BLOCKS = Case((9,), 9, 3 * BLOCK, "three blocks of K")
LONG = Case((9,), 5, 8 * BLOCK, f"eight blocks of K, {UNIT}")
TAIL = Case((10,), 6, 2 * BLOCK + 41, "two blocks of K, a step, and a tail of nine")
SHORT = Case((2, 1), 3, 29, "less than a step of K")
FEATURES = Case((2,), BLOCK + 19, BLOCK + 5, "two blocks of N")
EXPERTS = Case((3, 17, 2), 7, BLOCK + STEP, "three experts")
ZERO = Case((6, 3), 5, 3 * BLOCK, ZEROS)
BINADES = Case((5, 12), 4, 3 * BLOCK, f"scales over {MANY}")

exercise = Promotion()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "one tile, one block of K: four steps, one promotion")
def test_one_block(student):
    student.is_right(ONE)


@check(3, "three blocks of K, each with its scales")
def test_blocks(student):
    student.is_right(BLOCKS)


@check(3, "a long K where every scale is 1: how exact the sum is")
def test_long(student):
    student.is_right(LONG)


@check(2, "a K that ends inside a block, and inside a step")
def test_tail(student):
    student.is_right(TAIL, SHORT)


@check(2, "two blocks of N")
def test_features(student):
    student.is_right(FEATURES)


@check(2, "neighbouring experts have their own rows, weights and scales")
def test_experts(student):
    student.is_right(EXPERTS)


@check(1, "blocks of zeros")
def test_zeros(student):
    student.is_right(ZERO)


@check(2, "scales over twelve binades")
def test_binades(student):
    student.is_right(BINADES)


@check(3, "ragged cases: empty experts, single tokens, an odd N and K")
def test_ragged(student):
    student.is_right(*exercise.ragged(student.seed))


@check(3, "the checked simulator finds nothing: bounds, races, uninitialised memory")
def test_clean(student):
    # why one schedule: nothing is shared, so the order of threads changes nothing
    student.is_clean(*exercise.cases(student.seed), schedules=(0,))


@check(2, "a lane reads two scales of x and one of w for each block of K")
def test_traffic(student):
    student.keeps_to(BLOCKS, TAIL, EXPERTS)


@check(1, "it compiles for a GPU, in float32 and integers")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(*exercise.cases(student.seed), Case((90, 0, 1, 31), 150, 601, "larger"), device="gpu")


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
