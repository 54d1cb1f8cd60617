"""A timeline's numbers, on runs small enough to count by hand."""

import pytest

from gemm_lessons.trace import Slice, Timeline, lanes


def piece(sm: int, start: float, stop: float, block: int | None = None) -> Slice:
    return Slice(sm if block is None else block, sm, 0, 0, 0, start, stop)


def test_idle_tail_is_the_time_spent_waiting_for_the_last_sm():
    timeline = Timeline((piece(0, 10, 20), piece(0, 20, 30), piece(1, 10, 15)), num_sms=2, unit="ns")
    assert timeline.makespan == 20
    assert timeline.finished == (30, 15)
    assert timeline.idle_tail == pytest.approx(15 / 40)


def test_an_sm_without_a_tile_is_idle_all_the_time():
    timeline = Timeline((piece(0, 0, 10),), num_sms=4, unit="ns")
    assert timeline.idle_tail == pytest.approx(3 / 4)


def test_no_slices_waste_nothing():
    timeline = Timeline((), num_sms=4, unit="ns")
    assert (timeline.makespan, timeline.idle_tail) == (0, 0)


@pytest.mark.parametrize("wrong", [piece(0, 5, 4), piece(2, 0, 1), piece(-1, 0, 1)])
def test_impossible_slices_are_refused(wrong):
    with pytest.raises(ValueError, match=r"SM|stops"):
        Timeline((wrong,), num_sms=2, unit="ns")


def test_blocks_on_one_sm_get_lanes_of_their_own():
    placed = lanes([piece(1, 0, 1, block=3), piece(0, 0, 1, block=0), piece(1, 0, 1, block=1)])
    assert placed == {0: (0, 0), 1: (1, 0), 3: (1, 1)}
