"""Grader of exercise 06.  The oracles below are what the docstrings of the exercise say, in NumPy."""

import numpy as np

from gemm_lessons.grading.cases import Case
from gemm_lessons.grading.checks import check
from gemm_lessons.grading.exercise import HostExercise, Question


def counts_of(case):
    return np.array(case.counts, np.int32)


def costs(counts, tiles):
    return np.repeat(counts.astype(np.int64), tiles)


def costs_of(case):
    """Costs of a case's tiles: N of them for each expert."""
    return costs(counts_of(case), case.N)


def order(of_tiles):
    return np.argsort(-of_tiles, kind="stable").astype(np.int32)


def greedy(of_tiles, num_blocks, tiles):
    """Where each tile goes if it goes to the block with the least work, and the loads at the end."""
    block_of, loads = np.zeros(len(of_tiles), np.int32), np.zeros(num_blocks, np.int64)
    for tile in tiles:
        block_of[tile] = np.argmin(loads)
        loads[block_of[tile]] += of_tiles[tile]
    return block_of, loads


def deal(of_tiles, num_blocks):
    return greedy(of_tiles, num_blocks, order(of_tiles))[0]


def loads_of(of_tiles, block_of, num_blocks):
    return np.bincount(block_of, of_tiles, num_blocks)


def of_deal(of_tiles, block_of, num_blocks):
    return int(loads_of(of_tiles, block_of, num_blocks).max())


def of_queue(of_tiles, tiles, num_blocks):
    return int(greedy(of_tiles, num_blocks, tiles)[1].max())


def bound(of_tiles, num_blocks):
    return max(-(-int(of_tiles.sum()) // num_blocks), int(of_tiles.max(initial=0)))


def some_deal(case, rng):
    return rng.integers(0, case.K, case.N * len(case.counts)).astype(np.int32)


def some_order(case, rng):
    return rng.permutation(case.N * len(case.counts)).astype(np.int32)


def turns(num, num_blocks):
    return (np.arange(num) % num_blocks).astype(np.int32)


def in_turns(of_tiles, num_blocks):
    """Sorted tiles dealt in turn."""
    block_of = np.zeros(len(of_tiles), np.int32)
    block_of[order(of_tiles)] = turns(len(of_tiles), num_blocks)
    return block_of


COSTS = Question(
    "tile_costs",
    lambda case, rng: (counts_of(case), case.N),
    costs,
    {
        "tiles alternate": lambda counts, tiles: np.tile(counts.astype(np.int64), tiles),
        "all equal": lambda counts, tiles: np.full(len(counts) * tiles, counts.max(initial=0), np.int64),
        "ones": lambda counts, tiles: np.ones(len(counts) * tiles, np.int64),
        "no empty experts": lambda counts, tiles: costs(counts[counts > 0], tiles),
        "of experts": lambda counts, tiles: counts.astype(np.int64),
        "shared": lambda counts, tiles: costs(counts // tiles, tiles),
        "total": lambda counts, tiles: costs(counts * tiles, tiles),
    },
)
ORDER = Question(
    "longest_first",
    lambda case, rng: (costs_of(case),),
    order,
    {
        "shortest first": lambda c: np.argsort(c, kind="stable").astype(np.int32),
        "shortest first, reversed": lambda c: np.argsort(c, kind="stable")[::-1].astype(np.int32),
        "as they are": lambda c: np.arange(len(c), dtype=np.int32),
        "no empty tiles": lambda c: order(c)[: int((c > 0).sum())],
        "ranks": lambda c: np.argsort(order(c)).astype(np.int32),
        "one of each": lambda c: np.unique(-c, return_index=True)[1].astype(np.int32),
    },
)
DEAL = Question(
    "deal_balanced",
    lambda case, rng: (costs_of(case), case.K),
    deal,
    {
        "in turn": lambda c, blocks: turns(len(c), blocks),
        "sorted, in turn": in_turns,
        "not sorted": lambda c, blocks: greedy(c, blocks, np.arange(len(c)))[0],
        "shortest first": lambda c, blocks: greedy(c, blocks, np.argsort(c, kind="stable"))[0],
        "reversed": lambda c, blocks: greedy(c, blocks, np.argsort(c, kind="stable")[::-1])[0],
        "by place in the order": lambda c, blocks: deal(c, blocks)[order(c)],
        "to the fullest": lambda c, blocks: np.zeros(len(c), np.int32),
        "by number of tiles": lambda c, blocks: in_turns(c, blocks),
        "costs ignored": lambda c, blocks: greedy(np.ones_like(c), blocks, np.arange(len(c)))[0],
    },
)
OF_DEAL = Question(
    "makespan_of_deal",
    lambda case, rng: (costs_of(case), some_deal(case, rng), case.K),
    of_deal,
    {
        "total": lambda c, b, blocks: int(c.sum()),
        "average": lambda c, b, blocks: -(-int(c.sum()) // blocks),
        "shortest": lambda c, b, blocks: int(loads_of(c, b, blocks).min()),
        "number of tiles": lambda c, b, blocks: int(np.bincount(b, minlength=blocks).max(initial=0)),
        "longest tile": lambda c, b, blocks: int(c.max(initial=0)),
        "one tile for each block": lambda c, b, blocks: int(max(c[b == k][-1:].sum() for k in range(blocks))),
        "first block": lambda c, b, blocks: int(loads_of(c, b, blocks)[0]),
    },
    exact_type=int,
)
OF_QUEUE = Question(
    "makespan_of_queue",
    lambda case, rng: (costs_of(case), some_order(case, rng), case.K),
    of_queue,
    {
        "dealt in turn": lambda c, o, blocks: of_deal(c[o], turns(len(o), blocks), blocks),
        "order ignored": lambda c, o, blocks: of_queue(c, np.arange(len(c)), blocks),
        "sorted": lambda c, o, blocks: of_queue(c, order(c), blocks),
        "total": lambda c, o, blocks: int(c.sum()),
        "first to be done": lambda c, o, blocks: int(greedy(c, blocks, o)[1].min()),
        "costs by place": lambda c, o, blocks: int(greedy(c, blocks, np.argsort(o))[1].max()),
        "rounds": lambda c, o, blocks: sum(int(c[o[i : i + blocks]].max()) for i in range(0, len(o), blocks)),
        "last to start": lambda c, o, blocks: int(greedy(c, blocks, o[:-1])[1].max()),
    },
    exact_type=int,
)
BOUND = Question(
    "lower_bound",
    lambda case, rng: (costs_of(case), case.K),
    bound,
    {
        "average alone": lambda c, blocks: -(-int(c.sum()) // blocks),
        "longest alone": lambda c, blocks: int(c.max(initial=0)),
        "rounded down": lambda c, blocks: max(int(c.sum()) // blocks, int(c.max(initial=0))),
        "smaller of the two": lambda c, blocks: min(-(-int(c.sum()) // blocks), int(c.max(initial=0))),
        "sum of the two": lambda c, blocks: -(-int(c.sum()) // blocks) + int(c.max(initial=0)),
        "longest first": lambda c, blocks: of_deal(c, deal(c, blocks), blocks),
    },
    exact_type=int,
)


class Schedules(HostExercise):
    """In a case, N is the tiles of each expert, and K the number of blocks."""

    name = "ex06_schedules"
    questions = (COSTS, ORDER, DEAL, OF_DEAL, OF_QUEUE, BOUND)

    def cases(self, seed):
        rng = np.random.default_rng(seed)
        return [
            Case((30, 10, 50), 2, 3, "three experts"),
            Case((30, 0, 50, 0), 2, 3, "experts without tokens"),
            Case((8, 8, 8, 8), 3, 5, "equal experts"),
            Case((1, 1, 2, 2, 2, 4, 6), 1, 3, "the lesson's seven pieces"),
            Case((3, 3, 2, 2, 2), 1, 2, "Graham's five pieces"),
            Case((100, 1, 1, 1), 1, 4, "one long expert"),
            Case((5, 7), 1, 6, "more blocks than tiles"),
            Case((9, 4, 4), 4, 1, "one block"),
            Case((0, 0), 2, 3, "no tokens at all"),
            Case(tuple(int(n) for n in rng.integers(0, 60, 9)), 4, 7, "nine experts"),
            Case(tuple(int(n) for n in rng.integers(1, 4, 20)), 2, 6, "many equal tiles"),
        ]


exercise = Schedules()


@check(1, "the source keeps the rules")
def test_rules(student):
    student.keeps_the_rules()


@check(2, "tile_costs")
def test_costs(student):
    student.answers("tile_costs", *exercise.cases(student.seed))


@check(2, "longest_first")
def test_order(student):
    student.answers("longest_first", *exercise.cases(student.seed))


@check(3, "deal_balanced")
def test_deal(student):
    student.answers("deal_balanced", *exercise.cases(student.seed))


@check(2, "makespan_of_deal")
def test_makespan_of_deal(student):
    student.answers("makespan_of_deal", *exercise.cases(student.seed))


@check(2, "makespan_of_queue")
def test_makespan_of_queue(student):
    student.answers("makespan_of_queue", *exercise.cases(student.seed))


@check(1, "lower_bound")
def test_bound(student):
    student.answers("lower_bound", *exercise.cases(student.seed))


@check(2, "the instructor's case")
def test_hidden(student, hidden_case):
    for question in exercise.questions:
        student.answers(question.function, hidden_case)
