"""Grader of exercise 01.  The oracles below are what the docstrings of the exercise say, in NumPy."""

import math

import numpy as np

from gemm_lessons.grading.cases import Case
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import HostExercise, Question

TILE = 4
LARGE = Case((70_000,) * 3, 4096, 64, "more FLOPs than 32 bits count")


def batches(case, rng):
    """Counts of three batches: the case's own, and two more of the same number of experts."""
    more = rng.integers(0, 9, (2, len(case.counts)))
    return np.vstack([case.counts, more]).astype(np.int32)


def counts_of(case):
    return np.array(case.counts, np.int32)


def tokens(case, rng):
    return rng.standard_normal((case.total, case.K), dtype=np.float32)


def offsets(counts, tile):
    rows = -(-counts.astype(np.int64) // tile) * tile
    return np.concatenate(([0], np.cumsum(rows))).astype(np.int32)


def rows_of_tokens(counts, tile):
    """The row in the aligned layout of each token."""
    starts = np.repeat(offsets(counts, tile)[:-1], counts)
    return starts + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def pack(x, counts, tile):
    packed = np.zeros((offsets(counts, tile)[-1], x.shape[1]), x.dtype)
    packed[rows_of_tokens(counts, tile)] = x
    return packed


def unpack(packed, counts, tile):
    return packed[rows_of_tokens(counts, tile)]


def packed(case, rng):
    """An aligned layout with numbers in its padding, and tokens of zeros: values say nothing."""
    whole = rng.standard_normal((int(offsets(counts_of(case), TILE)[-1]), case.K), dtype=np.float32)
    whole[::3] = 0.0
    return whole, counts_of(case), TILE


def useful(counts, N, K):
    return 2 * int(counts.sum()) * N * K


def padded(counts, N, K):
    return 2 * int(counts.max(axis=1).sum()) * counts.shape[1] * N * K


def capacity(counts, factor):
    return np.array([math.ceil(factor * int(n) / counts.shape[1]) for n in counts.sum(axis=1)], np.int32)


def dropped(counts, limits):
    return np.maximum(counts - limits[:, None], 0).sum(axis=1).astype(np.int32)


def with_limits(case, rng):
    counts = batches(case, rng)
    return counts, rng.integers(1, 6, len(counts)).astype(np.int32)


OFFSETS = Question(
    "aligned_offsets",
    lambda case, rng: (counts_of(case), TILE),
    offsets,
    {
        "inclusive-sum": lambda counts, tile: offsets(counts, tile)[1:],
        "not-aligned": lambda counts, tile: offsets(counts, 1),
        "tiles-rounded-down": lambda counts, tile: offsets(counts // tile * tile, 1),
        "tile-too-many": lambda counts, tile: offsets(counts + 1, tile),
        "no-total": lambda counts, tile: offsets(counts, tile)[:-1],
        "padded-to-longest": lambda counts, tile: (np.arange(len(counts) + 1) * counts.max()).astype(
            np.int32
        ),
        "inclusive-sum (unaligned)": lambda counts, tile: offsets(counts, 1)[1:],
        "sum-rounded": lambda counts, tile: -(-offsets(counts, 1) // tile) * tile,
    },
)
USEFUL = Question(
    "useful_flops",
    lambda case, rng: (batches(case, rng), case.N, case.K),
    useful,
    {
        "padding-is-useful": padded,
        "one-flop-per-term": lambda counts, N, K: useful(counts, N, K) // 2,
        "overflow": lambda counts, N, K: int(np.array(useful(counts, N, K)).astype(np.int32)),
    },
    exact_type=int,
    more=(LARGE,),
)
PADDED = Question(
    "padded_flops",
    lambda case, rng: (batches(case, rng), case.N, case.K),
    padded,
    {
        "one-flop-per-term": lambda counts, N, K: padded(counts, N, K) // 2,
        "wrong-axis": lambda counts, N, K: 2 * int(counts.max(axis=0).sum()) * counts.shape[0] * N * K,
        "wrong-axis (experts)": lambda counts, N, K: (
            2 * int(counts.max(axis=0).sum()) * counts.shape[1] * N * K
        ),
        "longest-of-all-batches": lambda counts, N, K: 2 * int(counts.max()) * counts.size * N * K,
        "experts-not-counted": lambda counts, N, K: 2 * int(counts.max(axis=1).sum()) * N * K,
    },
    exact_type=int,
    more=(LARGE,),
)


def first_tokens(x, counts, tile):
    """Every expert packed with the first tokens of all."""
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    return pack(x[np.arange(counts.sum()) - starts], counts, tile)


def tokens_are_right(got, x, counts, tile):
    return np.array_equal(got[rows_of_tokens(counts, tile)], x)


PACK = Question(
    "pack",
    lambda case, rng: (tokens(case, rng), counts_of(case), TILE),
    pack,
    {
        "packed-without-alignment (short)": lambda x, counts, tile: x,
        "start-not-advanced": first_tokens,
        "packed-without-alignment": lambda x, counts, tile: np.concatenate(
            [x, pack(x, counts, tile)[len(x) :] * 0]
        ),
    },
    tells={"padding-not-zero": tokens_are_right},
)
UNPACK = Question(
    "unpack",
    packed,
    unpack,
    {
        "unpack-keeps-padding": lambda whole, counts, tile: whole,
        "unpack-first-rows": lambda whole, counts, tile: whole[: counts.sum()],
        "padding-found-by-value": lambda whole, counts, tile: whole[np.any(whole != 0, axis=1)],
    },
)
CAPACITY = Question(
    "capacity",
    lambda case, rng: (batches(case, rng), 1.25),
    capacity,
    {
        "capacity-rounded-down": lambda counts, factor: np.floor(
            factor * counts.sum(axis=1) / counts.shape[1]
        ).astype(np.int32),
        "capacity-rounded-down (nearest)": lambda counts, factor: np.rint(
            factor * counts.sum(axis=1) / counts.shape[1]
        ).astype(np.int32),
        "capacity-rounded-down (share first)": lambda counts, factor: np.ceil(
            factor * (counts.sum(axis=1) // counts.shape[1])
        ).astype(np.int32),
        "factor-forgotten": lambda counts, factor: capacity(counts, 1.0),
        "wrong-axis": lambda counts, factor: capacity(counts.T, factor),
        "capacity-from-longest": lambda counts, factor: np.ceil(factor * counts.max(axis=1)).astype(np.int32),
    },
)
DROPPED = Question(
    "dropped",
    with_limits,
    dropped,
    {
        "dropped-not-clipped": lambda counts, limits: (counts - limits[:, None]).sum(axis=1).astype(np.int32),
        "room-shared": lambda counts, limits: np.maximum(
            counts.sum(axis=1) - limits * counts.shape[1], 0
        ).astype(np.int32),
        "experts-for-tokens": lambda counts, limits: (counts > limits[:, None]).sum(axis=1).astype(np.int32),
        "wrong-axis": lambda counts, limits: (
            np.maximum(counts - limits[:, None], 0).sum(axis=0).astype(np.int32)
        ),
    },
)


class Padding(HostExercise):
    """Offsets, FLOPs, pack and unpack, capacity."""

    name = "ex01_padding"
    questions = (OFFSETS, USEFUL, PADDED, PACK, UNPACK, CAPACITY, DROPPED)

    def cases(self, seed):
        return [OVERVIEW, *ragged(seed)]


OVERVIEW = Case((5, 3, 8, 1), 3, 2, "four experts")


def ragged(seed):
    rng = np.random.default_rng(seed)
    several = rng.integers(0, 12, 7)
    return [
        Case((0, 5, 3), 2, 3, "first expert empty"),
        Case((2, 0, 0, 7), 5, 1, "experts in the middle empty"),
        Case((4, 9, 0), 2, 2, "last expert empty"),
        Case((4, 8, 4), 3, 2, "whole tiles"),
        Case((0, 0, 0), 2, 2, "no tokens at all"),
        Case((6,), 2, 3, "one expert"),
        Case(tuple(int(n) for n in several), 5, 3, "seven experts"),
    ]


exercise = Padding()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "aligned_offsets")
def test_aligned_offsets(student):
    student.answers("aligned_offsets", *exercise.cases(student.seed))


@check(1, "useful_flops")
def test_useful_flops(student):
    student.answers("useful_flops", *exercise.cases(student.seed))


@check(2, "padded_flops")
def test_padded_flops(student):
    student.answers("padded_flops", *exercise.cases(student.seed))


@check(2, "pack")
def test_pack(student):
    student.answers("pack", *exercise.cases(student.seed))


@check(2, "unpack")
def test_unpack(student):
    student.answers("unpack", *exercise.cases(student.seed))


@check(1, "capacity")
def test_capacity(student):
    student.answers("capacity", *exercise.cases(student.seed))


@check(1, "dropped")
def test_dropped(student):
    student.answers("dropped", *exercise.cases(student.seed))


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    for question in exercise.questions:
        student.answers(question.function, hidden_case)
