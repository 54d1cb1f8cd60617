"""The device's tile queue: every tile once, tails last and largest first, wherever the counts put them."""

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


def make_lister():
    open_queue, find_tile = make_tile_queue(BM, BN, BAND)

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


LISTER = make_lister()


def tiles_of(counts, N=130, num_workers=8):
    problem = GroupedProblem(tuple(counts), N, 8, "bfloat16")
    tiles = to_device(np.zeros((MOST, 4), np.int32))
    sizes = (np.int32(problem.total_tokens), np.int32(ceil_div(N, BN)), np.int32(num_workers))
    Launch(LISTER, 1, 32, (to_device(problem.offsets), *sizes, tiles))()
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


def test_tails_come_last_and_the_largest_first():
    _, tiles = tiles_of((40, 75, 32, 50, 96 + 20))
    tails = [rows for _, row, rows, _ in tiles if rows < BM]
    whole = len(tiles) - len(tails)
    assert all(rows == BM for rows in tiles[:whole, 2])
    assert tails == sorted(tails, reverse=True)


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
