"""Right but unusual solutions: none may lose a point."""

import pytest

from grading.helpers import TESTS, constants, grade, on_solution

LONG = {  # ten seconds each, and nothing that no other shows: `make test-all` grades them, too
    "slots_backwards_in_long_slabs",
    "two_slabs_in_turn",
    "zeros_first_then_the_sum",
    "gradient_tiles_along_n",
    "draws_ahead",
    "one_lane_releases_for_its_warp",
    "last_ticket_resets",
    "pieces_are_numbered",
    "shared_memory",
    "scales_ahead",
    "blocks_from_the_last",
    "four_products_at_a_time",
    "counter_goes_on",
    "own_part_in_its_turn",
}
UNUSUAL = sorted((TESTS / "unusual").glob("*.py"))


def test_there_are_enough_of_them():
    assert len(UNUSUAL) >= 15


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in LONG else ()) for path in UNUSUAL],
    ids=lambda path: path.stem,
)
def test_gets_full_marks(path, tmp_path, runner):
    graded = grade(constants(path)["EXERCISE"], on_solution(path), tmp_path, runner)
    assert [(check.name, check.text) for check in graded.checks if check.status == "failed"] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("path", UNUSUAL, ids=lambda path: path.stem)
def test_gets_full_marks_with_any_seed_and_the_compiler(path, seed, tmp_path, runner):
    graded = grade(
        constants(path)["EXERCISE"], on_solution(path), tmp_path, runner, seed=seed, compile_it=seed == 1
    )
    assert [(check.name, check.text) for check in graded.checks if check.status == "failed"] == []
