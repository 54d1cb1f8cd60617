"""The device's tile queue: every tile once, in an order that L2 likes and that ends level."""

import numpy as np
import pytest
from numba import cuda, int32

from gemm_lessons import device
from gemm_lessons.launch import Launch, to_device
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.schedule import ceil_div
from gemm_lessons.tile_queue import MEMORY, make_tile_queue, most_tickets

pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both

BM, BN, BAND = 32, 64, 2
MOST = 400


def make_lister(least):
    open_queue, find_tile = make_tile_queue(BM, BN, BAND, least)

    @cuda.jit
    def list_tiles(offsets, total_tokens, tiles_n, num_workers, tiles):
        memory = cuda.local.array(MEMORY, int32)
        open_queue(memory, offsets, total_tokens, tiles_n, num_workers)
        for ticket in range(tiles.shape[0]):
            group, row, rows, feature = find_tile(memory, offsets, total_tokens, tiles_n, int32(ticket))
            if cuda.threadIdx.x == 0:
                tiles[ticket, 0], tiles[ticket, 1] = group, row
                tiles[ticket, 2], tiles[ticket, 3] = rows, feature
            if rows == 0:
                break

    return list_tiles


LISTER, UNCUT = make_lister(8), make_lister(BM)


def tiles_of(counts, N=130, num_workers=8, lister=LISTER):
    problem = GroupedProblem(tuple(counts), N, 8, "bfloat16")
    tiles = to_device(np.zeros((MOST, 4), np.int32))
    sizes = (np.int32(problem.total_tokens), np.int32(ceil_div(N, BN)), np.int32(num_workers))
    Launch(lister, 1, 32, (to_device(problem.offsets), *sizes, tiles))()
    listed = tiles.copy_to_host()
    listed = listed[: int(np.argmin(listed[:, 2]))]
    assert len(listed) <= most_tickets(problem, BM, BN)
    return problem, listed


COUNTS = {
    "one": (1,),
    "empty ones": (0, 40, 0, 0, 7, 0),
    "around a tile": (31, 32, 33, 64),
    "one expert": (500,),
    "more than 32 experts": tuple(g % 50 for g in range(45)),
    "empty chunk": (0,) * 40 + (33, 32),
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_output_is_in_exactly_one_tile(name):
    problem, tiles = tiles_of(COUNTS[name])
    covered = np.zeros((problem.total_tokens, ceil_div(problem.N, BN)), int)
    for group, row, rows, feature in tiles:
        assert problem.offsets[group] <= row < row + rows <= problem.offsets[group + 1]
        covered[row : row + rows, feature // BN] += 1
    assert (covered == 1).all()


def test_the_last_experts_tails_come_last_and_the_largest_first():
    # 3 column tiles: the tails of two experts are more than half as many as 8 workers.
    _, tiles = tiles_of((40, 75, 32, 50, 96 + 20))
    assert [tuple(tile) for tile in tiles[-6:, [0, 2]]] == [(4, 20)] * 3 + [(3, 18)] * 3
    in_order = tiles[:-6]
    assert list(in_order[:, 0]) == sorted(in_order[:, 0])
    assert all(rows == BM for group, _, rows, _ in in_order if group >= 3)


def test_a_tail_runs_beside_the_full_tiles_of_its_expert():
    _, tiles = tiles_of((40, 75, 32, 50, 96 + 20))
    first = tiles[tiles[:, 0] == 0]
    assert [(rows, feature // BN) for _, _, rows, feature in first] == [
        (32, 0), (8, 0), (32, 1), (8, 1), (32, 2), (8, 2),
    ]  # fmt: skip


def in_words(counts, num_workers):
    """(group, rows) in the queue's order, for one tile of features: what its docstring says, in Python."""
    tails = {group: count % BM for group, count in enumerate(counts) if count % BM}
    held = list(tails)[len(tails) - min(num_workers // 2, len(tails)) :]
    order = []
    for group, count in enumerate(counts):
        order += [(group, BM)] * (count // BM)
        order += [(group, tails[group])] if group in tails and group not in held else []
    for chunk in range(0, len(counts), 32):
        here = [group for group in held if chunk <= group < chunk + 32]
        order += [(group, tails[group]) for group in sorted(here, key=lambda group: -tails[group])]
    return order


@pytest.mark.parametrize("num_workers", [1, 2, 6, 40, 100, 1000])
def test_as_few_tails_are_held_back_as_half_the_workers_need(num_workers):
    counts = (5, 40, 0, 33, 64, 70, 1) * 12
    _, tiles = tiles_of(counts, N=64, num_workers=num_workers, lister=UNCUT)
    assert [(group, rows) for group, _, rows, _ in tiles] == in_words(counts, num_workers)


@pytest.mark.parametrize(
    ("full_tiles", "heights"),
    [(8, [32] * 8), (9, [32] * 8 + [8] * 4), (11, [32] * 8 + [16] * 6), (13, [32] * 13)],
)
def test_the_last_full_tiles_are_cut_to_fill_a_wave(full_tiles, heights):
    _, tiles = tiles_of((BM * full_tiles,), N=64)
    assert list(tiles[:, 2]) == heights


def test_no_tokens_are_no_tiles():
    assert len(tiles_of((0, 0))[1]) == 0


def test_neighbouring_tickets_share_token_tiles_of_a_band():
    _, tiles = tiles_of((BM * 4,), num_workers=4)
    assert [(row // BM, feature // BN) for _, row, _, feature in tiles[:6]] == [
        (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2),
    ]  # fmt: skip
