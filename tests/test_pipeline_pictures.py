"""The pictures of lesson 11 show what the ring and the instructions do."""

import itertools

import pytest
from matplotlib.figure import Figure

from gemm_lessons import pipeline_pictures
from gemm_lessons.pipeline_pictures import SLABS_PER_TILE, piece_of, turns_of


@pytest.mark.parametrize(("num_stages", "load", "store"), [(2, 3, 3), (3, 3, 0), (4, 3, 6), (6, 8, 1)])
def test_nobody_enters_a_stage_too_early(num_stages, load, store):
    turns = turns_of(num_stages, load, 1, store)
    for turn in turns:
        assert turn.landed == turn.asked + load
        assert turn.begins >= turn.landed
        assert turn.asked >= turn.wanted
    for older, newer in zip(turns, turns[num_stages:], strict=False):
        assert newer.stage == older.stage
        assert newer.parity != older.parity, "a phase flips when the ring has gone round"
        assert newer.asked >= older.released
    for older, newer in itertools.pairwise(turns):
        assert newer.begins >= older.released, "one consumer multiplies one slab at a time"


def test_enough_stages_hide_a_copy():
    without_waiting = 3 + 3 * SLABS_PER_TILE
    ends = {stages: turns_of(stages, 3, 1, 0)[-1].released for stages in (2, 3, 4, 5)}
    assert ends[4] == ends[5] == without_waiting
    assert ends[2] > ends[3] > ends[4]


def test_the_next_tile_is_loaded_while_this_one_is_stored():
    turns = turns_of(4, 3, 1, 3)
    first_of_next = turns[SLABS_PER_TILE]
    stored = turns[SLABS_PER_TILE - 1].released + 3
    assert first_of_next.asked < stored
    assert first_of_next.begins == stored, "it was there, and nobody waited for it"


def test_a_box_is_swizzled_as_the_instructions_say():
    for row in range(8):
        assert [piece_of(place, row) for place in range(8)] == [place ^ row for place in range(8)]


def test_pictures_are_drawn():
    for figure in (
        pipeline_pictures.ring(),
        pipeline_pictures.ring(2, 8, 2, 0),
        pipeline_pictures.ring(6, 1, 1, 6),
        pipeline_pictures.box(0),
        pipeline_pictures.box(3),
    ):
        assert isinstance(figure, Figure)
        figure.canvas.draw()
