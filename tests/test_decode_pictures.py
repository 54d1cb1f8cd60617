"""The pictures of lesson 13 show how the step cuts its work, and what was recorded."""

import pytest
from matplotlib.figure import Figure

from gemm_lessons import decode_pictures
from gemm_lessons.decode_pictures import equal_shares, whole_tiles
from gemm_lessons.measure.decoding import Line

CASES = [(10, 8, 6), (1, 8, 6), (8, 8, 6), (3, 8, 1), (24, 1, 5), (7, 3, 4)]


def read_by(pieces, num_sms):
    return [sum(piece.stop - piece.start for piece in pieces if piece.sm == sm) for sm in range(num_sms)]


@pytest.mark.parametrize(("num_tiles", "num_sms", "slabs"), CASES)
@pytest.mark.parametrize("deal", [whole_tiles, equal_shares])
def test_every_slab_is_read_once_and_no_sm_pauses(deal, num_tiles, num_sms, slabs):
    pieces = deal(num_tiles, num_sms, slabs)
    for tile in range(num_tiles):
        assert sum(piece.stop - piece.start for piece in pieces if piece.tile == tile) == slabs
    for sm in range(num_sms):
        mine = [piece for piece in pieces if piece.sm == sm]
        assert [piece.start for piece in mine] == [0, *(piece.stop for piece in mine)][: len(mine)]


@pytest.mark.parametrize(("num_tiles", "num_sms", "slabs"), CASES)
def test_shares_differ_by_one_slab_and_parts_are_known(num_tiles, num_sms, slabs):
    pieces = equal_shares(num_tiles, num_sms, slabs)
    read = read_by(pieces, num_sms)
    assert max(read) - min(read) <= 1
    for piece in pieces:
        alone = sum(other.tile == piece.tile for other in pieces) == 1
        assert piece.part == (not alone)


def line(tokens, name, dtype="bfloat16"):
    return Line(
        f"{tokens} each", (tokens,) * 8, dtype, name, 100.0, 1.0, 10**8, 1.0, 25.0 + tokens, "right", True
    )


def test_pictures_are_drawn():
    programs = ("decode", "hopper", "torch._grouped_mm")
    lines = {"bfloat16": [line(tokens, name) for tokens in (1, 8, 64) for name in programs]}
    for figure in (
        decode_pictures.shares(),
        decode_pictures.shares(1, 16, 2),
        decode_pictures.shares(24, 2, 12),
        decode_pictures.speeds("somewhere, some day", lines),
    ):
        assert isinstance(figure, Figure)
        figure.canvas.draw()


def test_speeds_are_those_of_the_lines_in_the_order_of_tokens():
    lines = [line(tokens, "decode") for tokens in (64, 1, 8)]
    (axes,) = decode_pictures.speeds("somewhere, some day", {"bfloat16": lines}).axes
    (drawn,) = axes.get_lines()
    assert list(drawn.get_xdata()) == [1, 8, 64]
    assert list(drawn.get_ydata()) == [26.0, 33.0, 89.0]
