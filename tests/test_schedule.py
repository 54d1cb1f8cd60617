"""Every tile once, none lost, whatever the routing; the device's maps agree with the host's."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemm_lessons.problem import GroupedProblem, counts_to_offsets
from gemm_lessons.schedule import (
    SCHEDULES,
    ceil_div,
    count_tiles,
    find_group,
    find_group_linear,
    find_tile,
    list_tiles,
    plan,
    predict,
    tile_costs,
)

problems = st.builds(
    GroupedProblem,
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12).map(tuple),
    N=st.integers(1, 40),
    K=st.integers(1, 8),
)
extents = st.sampled_from([4, 8, 16])

# A device function is a plain Python function underneath: that is what these tests call.
on_host = {function: function.py_func if hasattr(function, "py_func") else function.fn for function in (
    find_group, find_group_linear, find_tile)}  # fmt: skip


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20).filter(any))
def test_both_searches_find_the_only_owner_of_every_row(counts):
    offsets = counts_to_offsets(counts)
    owners = np.repeat(np.arange(len(counts)), counts)
    for row, owner in enumerate(owners):
        assert on_host[find_group](offsets, row) == owner
        assert on_host[find_group_linear](offsets, row) == owner


@given(problems, extents, extents, st.sampled_from([1, 2, 8]))
def test_tiles_cover_every_output_exactly_once(problem, BM, BN, band):
    covered = np.zeros((problem.total_tokens, problem.N), int)
    for group, tile_m, tile_n in list_tiles(problem, BM, BN, band):
        start, stop = problem.offsets[group : group + 2]
        first_row = start + tile_m * BM
        assert first_row < stop, "a tile without rows"
        covered[first_row : min(first_row + BM, stop), tile_n * BN : (tile_n + 1) * BN] += 1
    assert (covered == 1).all()


@given(problems, extents, extents, st.sampled_from([1, 2, 8]))
def test_the_device_map_agrees_with_its_host_twin(problem, BM, BN, band):
    tile_offsets = count_tiles(problem, BM, BN)
    listed = list_tiles(problem, BM, BN, band)
    assert tile_offsets[-1] == len(listed)
    tiles_n = ceil_div(problem.N, BN)

    def find(offsets, index):
        return on_host[find_group](offsets, index)

    for tile, expected in enumerate(listed):
        function = type(on_host[find_tile])(
            on_host[find_tile].__code__, {**on_host[find_tile].__globals__, "find_group": find}
        )
        assert function(tile_offsets, tile, tiles_n, band) == tuple(expected)


@settings(max_examples=50)
@given(problems, st.sampled_from(list(SCHEDULES)), st.integers(1, 12))
def test_a_plan_hands_out_every_tile_once(problem, schedule, num_blocks):
    the_plan = plan(schedule, problem, 8, 8, num_blocks)
    num_tiles = count_tiles(problem, 8, 8)[-1]
    assert sorted(the_plan.order) == list(range(num_tiles))
    assert the_plan.queue_offsets[0] == 0
    assert the_plan.queue_offsets[-1] == num_tiles
    assert the_plan.num_queues in (1, num_blocks)


@settings(max_examples=50)
@given(problems, st.sampled_from(list(SCHEDULES)), st.integers(1, 12))
def test_a_prediction_runs_every_tile_once_and_no_block_twice_at_a_time(problem, schedule, num_blocks):
    timeline = predict(plan(schedule, problem, 8, 8, num_blocks), problem, 8, 8, num_blocks)
    tiles = [(piece.group, piece.tile_m, piece.tile_n) for piece in timeline.slices]
    assert sorted(tiles) == sorted(map(tuple, list_tiles(problem, 8, 8)))
    by_block: dict[int, list] = {}
    for piece in timeline.slices:
        by_block.setdefault(piece.block, []).append(piece)
    for pieces in by_block.values():
        pieces.sort(key=lambda piece: piece.start)
        assert all(a.stop <= b.start for a, b in itertools.pairwise(pieces))
    longest = 8 * 8 * problem.K
    total = len(tiles) * longest
    assert total / num_blocks <= timeline.makespan or not tiles
    if the_plan_is_greedy(schedule):
        assert timeline.makespan <= total / num_blocks + longest, "Graham's bound for list scheduling"


def the_plan_is_greedy(schedule):
    return schedule in ("work-stealing", "longest-first")


def test_sequential_leaves_blocks_idle_where_stealing_does_not():
    problem = GroupedProblem((64, 8, 8, 8), N=8, K=8)
    makespan = {
        schedule: predict(plan(schedule, problem, 8, 8, 4), problem, 8, 8, 4).makespan
        for schedule in SCHEDULES
    }
    assert makespan["sequential"] == 8 * 8 * 8 * 8
    assert makespan["work-stealing"] == 3 * 8 * 8 * 8
    assert makespan["tile-level"] == 3 * 8 * 8 * 8


def test_longest_first_orders_by_useful_work_and_keeps_ties_in_order():
    problem = GroupedProblem((9, 16), N=20, K=4)
    the_plan = plan("longest-first", problem, 8, 8, 2)
    costs = tile_costs(problem, list_tiles(problem, 8, 8), 8, 8)
    ordered = costs[the_plan.order]
    assert (np.diff(ordered) <= 0).all()
    for cost in np.unique(ordered):
        assert (np.diff(the_plan.order[ordered == cost]) > 0).all()


def test_tiles_of_a_band_share_their_columns():
    problem = GroupedProblem((32,), N=24, K=4)
    tiles = list_tiles(problem, BM=8, BN=8, band=2)
    assert [tuple(tile[1:]) for tile in tiles[:4]] == [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("fastest", 4), "no schedule is called 'fastest'"), (("work-stealing", 0), "0 blocks cannot work")],
)
def test_nonsense_is_refused(arguments, message):
    schedule, num_blocks = arguments
    with pytest.raises(ValueError, match=message):
        plan(schedule, GroupedProblem((3,), 8, 8), 8, 8, num_blocks)
