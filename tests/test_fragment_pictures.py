"""The pictures of lesson 10 show what the instructions do."""

import ml_dtypes
import numpy as np
import pytest
from matplotlib.figure import Figure

from gemm_lessons import fragment_pictures
from gemm_lessons.fragment_pictures import fragment_of, piece_at, pipeline_of
from gemm_lessons.ptx import matrix
from gemm_lessons.steps import tensor_core


def words_of(values, operand, count):
    """The words of each lane that the map says hold a matrix, whose rows run along k."""
    found = fragment_of(operand)
    lane, register = (each.T if operand == "B" else each for each in (found.lane, found.register))
    assert (lane[:, ::2] == lane[:, 1::2]).all(), "both halves of a word belong to one lane"
    halves = values.view(np.uint16).astype(np.uint32)
    words = np.zeros((32, count), np.uint32)
    words[lane[:, ::2], register[:, ::2]] = halves[:, ::2] | halves[:, 1::2] << 16
    return words


def test_the_maps_are_those_of_the_instruction():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((rows, 16)).astype(ml_dtypes.bfloat16) for rows in (16, 8))
    c = rng.standard_normal((16, 8)).astype(np.float32)
    of_c = fragment_of("C")
    sums = np.zeros((32, 4), np.float32)
    sums[of_c.lane, of_c.register] = c
    calls = [
        (*a, *b, *start) for a, b, start in zip(words_of(x, "A", 4), words_of(w, "B", 2), sums, strict=True)
    ]
    found = np.array(matrix._multiply(None, calls, 4, ml_dtypes.bfloat16))
    wanted = x.astype(np.float32) @ w.astype(np.float32).T + c
    np.testing.assert_allclose(found[of_c.lane, of_c.register], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("BK", [32, 64])
def test_a_swizzled_tile_is_one_pass(BK):
    pieces = BK // tensor_core.PIECE
    everywhere = {piece_at(row, piece, BK, swizzled=True) for row in range(8) for piece in range(pieces)}
    assert everywhere == set(range(8 * pieces)), "each piece has a place of its own"
    for piece in range(pieces):
        places = [piece_at(row, piece, BK, swizzled=True) % 8 for row in range(8)]
        assert sorted(places) == list(range(8)), "eight rows in eight groups of banks"


@pytest.mark.parametrize(("num_stages", "ends"), [(2, 31.0), (3, 17.0), (4, 13.0)])
def test_stages_hide_a_copy_that_takes_as_long_as_three_slabs(num_stages, ends):
    slabs = pipeline_of(num_stages, 3.0, 10)
    assert slabs[-1].ends == ends
    for older, newer in zip(slabs, slabs[num_stages:], strict=False):
        assert newer.asked >= older.ends, "a stage is refilled when its slab has been multiplied"


def test_pictures_are_drawn():
    for figure in (
        fragment_pictures.fragments(31),
        fragment_pictures.slab_in_banks(32, 3),
        fragment_pictures.slab_in_banks(64, 7),
        fragment_pictures.pipeline(3, 2.5),
    ):
        assert isinstance(figure, Figure)
        figure.canvas.draw()
