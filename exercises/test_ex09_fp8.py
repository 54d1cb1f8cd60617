"""Grader of exercise 09.  `quantized` and `Fp8.want` are the oracle."""

import numpy as np

from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import GroupedExercise
from gemm_lessons.grading.judge import Wanted, wanted

BLOCK_K, BLOCK_N = 16, 8
CLIP = np.float32(127 / 32)
LANES, ROWS = 8, 4
SCALES, GIVEN, BOTH = "scales", "given codes", "both kernels"  # names of cases say what runs
ZEROS, OUTLIERS, TIES, MANY = "blocks of zeros", "outliers", "ties", "twelve binades"


def ceil_div(value, divisor):
    return -(-value // divisor)


def amax_of(x, *, extent=BLOCK_K, signed=False):
    """The largest magnitude in each block of a row, float32 [rows, blocks]."""
    magnitude = x if signed else np.abs(x)
    if not x.size:
        return np.zeros((len(x), ceil_div(x.shape[1], extent)), np.float32)
    return np.maximum.reduceat(magnitude, np.arange(0, x.shape[1], extent), axis=1)


def scales_of(amax, *, clip=True):
    limited = np.minimum(amax, CLIP) if clip else amax
    return np.where(amax == 0, np.float32(1), limited / np.float32(127)).astype(np.float32)


def over(scales, num_k):
    """One scale for each k."""
    return scales.repeat(BLOCK_K, axis=-1)[..., :num_k]


def quantized(x):
    """Codes int8 and scales float32 of x, by the rule at the top of the exercise."""
    scales = scales_of(amax_of(x))
    return np.rint(np.clip(x / over(scales, x.shape[1]), -127, 127)).astype(np.int8), scales


OF_CODES = (
    "inverse-scale (codes)", "truncated", "ties", "wraps", "wraps (below)", "saturates-elsewhere",
)  # fmt: skip
OF_SUMS = (
    "inverse-scale (of both)", "inverse-scale (of x)", "inverse-scale (of w)", "scale-missing (of x)",
    "scale-missing (of w)", "scale-missing (both)", "scale-once (first)", "scale-once (last)",
    "scale-of-wrong-block (x)", "scale-of-wrong-block (w)", "scale-of-wrong-block (next of x)",
    "promoted-again", "sum-not-kept", "k-tail-dropped", "weights-block-per-row", "weights-block-first",
    "weights-block-extent", "wrong-experts-weights (scales)", "wrong-experts-weights",
)  # fmt: skip


class Fp8(GroupedExercise):
    """Quantise in blocks, multiply codes, scale each block's sum."""

    name = "ex09_fp8"
    tile = (ROWS, LANES)
    seconds = 6.0
    signatures = {
        "quantize_kernel": ("void(float32[:, ::1], int8[:, ::1], float32[:, ::1])",),
        "scaled_kernel": (
            "void(int8[:, ::1], float32[:, ::1], int8[:, :, ::1], float32[:, :, ::1], int32[::1],"
            " float32[:, ::1])",
        ),
    }

    def cases(self, seed):
        return [SCALES_WHOLE, SCALES_TAIL, ONE_BLOCK, GIVEN_BLOCKS, GIVEN_TAIL, GIVEN_N, PLAIN, ZERO,
                CLIPPED, TIED, BINADES, *self.ragged(seed)]  # fmt: skip

    def ragged(self, seed):
        """The ragged counts, with K of two blocks and a tail."""
        return [
            Case(case.counts, case.N, 2 * BLOCK_K + case.K, f"{BOTH}: {case.name}")
            for case in ragged(seed, *self.tile)
        ]

    def inputs(self, case, rng):
        """Tokens whose blocks differ in size, some of them zeros, some with outliers; weights as codes."""
        blocks, num_groups = ceil_div(case.K, BLOCK_K), len(case.counts)
        x = rng.standard_normal((case.total, case.K), dtype=np.float32)
        power = 6 if MANY in case.name else 1
        x *= over(np.exp2(rng.integers(-power, power + 1, (case.total, blocks))).astype(np.float32), case.K)
        x = np.clip(x, -CLIP, CLIP)
        if ZEROS in case.name or case.name.startswith((BOTH, SCALES)):
            x *= over((rng.random((case.total, blocks)) < 0.8).astype(np.float32), case.K)
        if OUTLIERS in case.name:
            hit = rng.random(x.shape) < 0.1
            x = np.where(hit, np.sign(x) * rng.uniform(5, 90, x.shape).astype(np.float32), x)
        if TIES in case.name:
            x = ((rng.integers(-126, 126, x.shape) + np.float32(0.5)) / 32).astype(np.float32)
            x[:, ::BLOCK_K] = -CLIP  # so that the scale is 1 / 32 exactly
        w = rng.integers(-127, 128, (num_groups, case.N, case.K)).astype(np.int8)
        shape = (num_groups, ceil_div(case.N, BLOCK_N), blocks)
        w_scales = (rng.uniform(1, 2, shape) * np.exp2(rng.integers(-power, power + 1, shape))).astype(
            np.float32
        )
        codes, scales = quantized(x)
        return {"x": x, "w": w, "w_scales": w_scales, "codes": codes, "scales": scales}

    def sums(self, case, inputs, *, codes=None, scales=None, w_scales=None, groups=None, power=1):
        """The sum that scales of any kind give, float64 [total, N].

        Args:
            case: the case.
            inputs: of it.
            codes: [total, K], maybe no integers.
            scales: [total, K], the scale of each term.
            w_scales: [total, N, K], the same of w.
            groups: expert of each row.
            power: of every term; 2 for the size of terms.
        """
        groups = case.groups if groups is None else groups
        codes = (inputs["codes"] if codes is None else codes).astype(np.float64)
        scales = over(inputs["scales"], case.K) if scales is None else scales
        w_scales = self.w_scale(case, inputs, groups) if w_scales is None else w_scales
        left = (codes * scales.astype(np.float64)) ** power
        right = (inputs["w"].astype(np.float64)[groups] * w_scales.astype(np.float64)) ** power
        return np.einsum("rk,rnk->rn", left, right)

    def w_scale(self, case, inputs, groups):
        """The scale of w for each term, [total, N, K]."""
        per_row = inputs["w_scales"].repeat(BLOCK_N, axis=1)[:, : case.N]
        return over(per_row, case.K)[groups]

    def want(self, case, inputs):
        if case.name.startswith(SCALES):
            scales = inputs["scales"].astype(np.float64)
            return Wanted(scales, 1e-6 * np.abs(scales))
        return wanted(self.sums(case, inputs), np.sqrt(self.sums(case, inputs, power=2)), case.K)

    def alternatives(self, case, inputs):
        right_scales = inputs["scales"].astype(np.float64)
        scales = self.wrong_scales(inputs["x"], inputs["scales"])
        if case.name.startswith(SCALES):
            return dict.fromkeys((*OF_CODES, *OF_SUMS), right_scales) | scales
        right = self.sums(case, inputs)
        found = dict.fromkeys((*scales, *OF_CODES), right)
        if not case.name.startswith(GIVEN):
            found = self.with_wrong_scales(case, inputs, scales) | self.with_wrong_codes(case, inputs)
        return found | self.wrong_sums(case, inputs, right)

    def wrong_scales(self, x, scales):
        """What mistakes in `quantize_kernel` store as scales."""
        amax, last = amax_of(x), scales.shape[1] - 1
        wrong = {
            "not-clipped": scales_of(amax, clip=False),
            "amax-signed": scales_of(np.maximum(amax_of(x, signed=True), 0)),
            "scale-per-row": scales_of(amax_of(x, extent=10**6)).repeat(last + 1, axis=1),
            "fixed-scale": np.where(amax == 0, np.float32(1), CLIP / np.float32(127)),
            "inverse-scale (stored)": 1 / scales,
            "zero-block (stored)": np.where(amax == 0, np.float32(0), scales),
            "zero-block (tiny)": np.minimum(amax, CLIP) / np.float32(127) + np.float32(1e-8),
        }
        return {key: value.astype(np.float64) for key, value in wrong.items()}

    def with_wrong_scales(self, case, inputs, wrong):
        """What y is with such scales, and with the codes that come of them."""
        found = {}
        for key, stored in wrong.items():
            used = 1 / stored if "stored" in key and "inverse" in key else stored
            divisor = over(np.where(used == 0, 1, used), case.K)
            codes = np.rint(np.clip(inputs["x"] / divisor, -127, 127))
            found[key] = self.sums(case, inputs, codes=codes, scales=over(stored, case.K))
        return found

    def with_wrong_codes(self, case, inputs):
        """What y is if right scales are used in a wrong way."""
        s = over(inputs["scales"], case.K)
        quotient = inputs["x"] / s
        limited = np.clip(quotient, -127, 127)
        codes = {
            "inverse-scale (codes)": np.rint(np.clip(inputs["x"] * s, -127, 127)),
            "truncated": np.trunc(limited),
            "ties": np.trunc(limited + np.copysign(np.float32(0.5), limited)),
            "wraps": np.rint(quotient).astype(np.int64).astype(np.int8),
            "wraps (below)": np.rint(np.minimum(quotient, 127)).astype(np.int64).astype(np.int8),
            "saturates-elsewhere": np.rint(np.clip(quotient, -128, 127)),
        }
        return {key: self.sums(case, inputs, codes=wrong) for key, wrong in codes.items()}

    def wrong_sums(self, case, inputs, right):
        """What mistakes in `scaled_kernel` make of right codes and scales."""
        K, one = case.K, np.ones(1, np.float32)
        s, ws = over(inputs["scales"], K), self.w_scale(case, inputs, case.groups)
        later = np.minimum(np.arange(K) + BLOCK_K, K - 1)  # a place in the next block
        codes, block_of_k = inputs["codes"], np.arange(K) // BLOCK_K
        last_part = self.sums(case, inputs, codes=codes * (block_of_k == block_of_k[-1]))
        group = case.groups * 0
        columns = np.arange(case.N)

        def of_rows(rows):
            """With another row of the scales of w for each column."""
            rows = np.minimum(rows, inputs["w_scales"].shape[1] - 1)
            return self.sums(case, inputs, w_scales=over(inputs["w_scales"][:, rows], K)[case.groups])

        return {
            "inverse-scale (of both)": self.sums(case, inputs, scales=1 / s, w_scales=1 / ws),
            "inverse-scale (of x)": self.sums(case, inputs, scales=1 / s),
            "inverse-scale (of w)": self.sums(case, inputs, w_scales=1 / ws),
            "scale-missing (of x)": self.sums(case, inputs, scales=one),
            "scale-missing (of w)": self.sums(case, inputs, w_scales=one),
            "scale-missing (both)": self.sums(case, inputs, scales=one, w_scales=one),
            "scale-once (first)": self.sums(case, inputs, scales=s[:, :1], w_scales=ws[..., :1]),
            "scale-once (last)": self.sums(case, inputs, scales=s[:, -1:], w_scales=ws[..., -1:]),
            "scale-of-wrong-block (x)": self.sums(case, inputs, scales=s[:, :1]),
            "scale-of-wrong-block (w)": self.sums(case, inputs, w_scales=ws[..., :1]),
            "scale-of-wrong-block (next of x)": self.sums(case, inputs, scales=s[:, later]),
            "promoted-again": self.promoted_again(case, inputs),
            "sum-not-kept": last_part,
            "k-tail-dropped": right - last_part if K % BLOCK_K else right,
            "weights-block-per-row": of_rows(columns),
            "weights-block-first": of_rows(columns * 0),
            "weights-block-extent": of_rows(columns // BLOCK_K),
            "wrong-experts-weights (scales)": self.sums(
                case, inputs, w_scales=self.w_scale(case, inputs, group)
            ),
            "wrong-experts-weights": self.sums(case, inputs, groups=group),
        }

    def promoted_again(self, case, inputs):
        """What comes out if a block's sum is not cleared: every block is scaled with all before it."""
        total = np.zeros((case.total, case.N))
        blocks = np.arange(case.K) // BLOCK_K
        unscaled = np.ones(1, np.float32)
        ws = inputs["w_scales"].repeat(BLOCK_N, axis=1)[:, : case.N][case.groups].astype(np.float64)
        for block in range(inputs["scales"].shape[1]):
            codes = inputs["codes"] * (blocks <= block)
            part = self.sums(case, inputs, codes=codes, scales=unscaled, w_scales=unscaled)
            total += part * inputs["scales"][:, [block]] * ws[..., block]
        return total

    def job(self, case, inputs, output):
        down = max(ceil_div(case.total, ROWS), 1)
        codes = {"device": np.full(inputs["codes"].shape, 85, np.int8)}  # as good as any: to be overwritten
        if case.name.startswith(SCALES):
            across = ceil_div(inputs["scales"].shape[1], LANES)
            arguments = [{"device": inputs["x"]}, codes, output]
            shape = (across, down), (LANES, ROWS)
            return {"kind": "kernel", "function": "quantize_kernel", "shape": shape, "arguments": arguments}
        weights = [{"device": inputs["w"]}, {"device": inputs["w_scales"]}, {"device": case.ends}, output]
        if case.name.startswith(GIVEN):
            shape = (ceil_div(case.N, LANES), down), (LANES, ROWS)
            arguments = [{"device": inputs["codes"]}, {"device": inputs["scales"]}, *weights]
            return {"kind": "kernel", "function": "scaled_kernel", "shape": shape, "arguments": arguments}
        scales = {"device": np.full(inputs["scales"].shape, np.nan, np.float32)}
        arguments = [{"device": inputs["x"]}, codes, scales, *weights]
        return {"kind": "launcher", "function": "quantize_and_multiply", "arguments": arguments}

    def num_launches(self, case):
        return 1 if case.name.startswith((SCALES, GIVEN)) else 2

    def most_reads(self, case):
        if not case.name.startswith(GIVEN):
            return {}
        outputs, blocks = case.total * case.N, ceil_div(case.K, BLOCK_K)
        terms = outputs * case.K
        return {"codes": terms, "w": terms, "scales": outputs * blocks, "w_scales": outputs * blocks, "y": 0}


SCALES_WHOLE = Case((5, 3), 4, 64, f"{SCALES}: whole blocks, {OUTLIERS}, {ZEROS}")
SCALES_TAIL = Case((2, 7), 3, 39, f"{SCALES}: a last block of seven, {OUTLIERS}")
ONE_BLOCK = Case((3, 2), 8, 16, f"{GIVEN}: a single block")
GIVEN_BLOCKS = Case((4, 2), 8, 48, f"{GIVEN}: three blocks of K")
GIVEN_TAIL = Case((3, 1), 7, 41, f"{GIVEN}: a last block of nine")
GIVEN_N = Case((2, 3), 21, 32, f"{GIVEN}: three blocks of N")
PLAIN = Case((3, 4), 8, 32, f"{BOTH}: whole blocks")
ZERO = Case((4, 1, 3), 9, 48, f"{BOTH}: {ZEROS}")
CLIPPED = Case((5, 2), 10, 32, f"{BOTH}: {OUTLIERS}")
TIED = Case((4, 4), 9, 33, f"{BOTH}: {TIES}")
BINADES = Case((3, 3), 11, 64, f"{BOTH}: {MANY}")

exercise = Fp8()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "scales: the largest magnitude, clipped, and 1 for zeros; the last block is shorter")
def test_scales(student):
    student.is_right(SCALES_WHOLE, SCALES_TAIL)


@check(2, "given codes: one block of K")
def test_one_block(student):
    student.is_right(ONE_BLOCK)


@check(3, "given codes: a scale for each block of K, and its tail")
def test_blocks(student):
    student.is_right(GIVEN_BLOCKS, GIVEN_TAIL)


@check(2, "given codes: a scale for each block of N")
def test_columns(student):
    student.is_right(GIVEN_N)


@check(2, "both kernels: whole blocks")
def test_codes(student):
    student.is_right(PLAIN)


@check(2, "both kernels: blocks of zeros")
def test_zeros(student):
    student.is_right(ZERO)


@check(2, "both kernels: outliers saturate")
def test_saturation(student):
    student.is_right(CLIPPED)


@check(1, "both kernels: ties go to the even code")
def test_ties(student):
    student.is_right(TIED)


@check(2, "both kernels: scales over twelve binades")
def test_binades(student):
    student.is_right(BINADES)


@check(3, "ragged cases: empty experts, single tokens, blocks that end early")
def test_ragged(student):
    student.is_right(*exercise.ragged(student.seed))


@check(3, "the checked simulator finds nothing: bounds, races, uninitialised memory")
def test_clean(student):
    student.is_clean(*exercise.cases(student.seed))


@check(1, "reads of global memory are within the budget")
def test_traffic(student):
    student.keeps_to(GIVEN_BLOCKS, GIVEN_TAIL, GIVEN_N)


@check(1, "it compiles for a GPU, in float32 and integers")
def test_compiles(student):
    student.compiles()


@check(2, "right on the GPU")
def test_on_gpu(student):
    student.is_right(
        *exercise.cases(student.seed), Case((90, 0, 1, 31), 70, 137, f"{BOTH}: larger"), device="gpu"
    )


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    student.is_right(hidden_case)
