"""Every wrong solution is rejected by the check that it names, and most are explained."""

import pytest

from gemm_lessons.authoring import mutants
from gemm_lessons.grading import api, misconceptions

MUTANTS = {f"{mutant.exercise[:4]}-{mutant.name}": mutant for mutant in mutants.mutants()}

# In `make test`, one of each kind; all of them in `make test-all`.
QUICK = {
    "ex01-inclusive",
    "ex01-padded_wrong_axis",
    "ex01-unpack_keeps_padding",
    "ex02-no_row_bounds",
    "ex02-rows_and_columns_swapped",
    "ex02-weights_as_lesson",
    "ex02-launches_empty",
    "ex02-float64",
    "ex02-next_weights",
    "ex02-sums_in_global_memory",
    "ex03-end_inside",
    "ex03-stops_at_equality",
    "ex03-pair_for_row",
    "ex03-too_many_threads",
    "ex04-no_barrier_before_load",
    "ex04-tile_crosses_into_next_expert",
    "ex05-counter_not_atomic",
    "ex05-never_reset",
    "ex05-every_thread_draws",
    "ex05-no_second_barrier",
    "ex06-reversed_ties",
    "ex06-costs_ignore_k",
    "ex07-not_clamped",
    "ex07-hole_ends_the_slab",
    "ex08-bias_in_weight",
    "ex08-ties_to_the_highest",
    "ex08-ticket_for_each_slot",
    "ex08-two_tokens_to_one_row",
    "ex08-not_renormalised",
    "ex08-capacity_ignored",
    "ex10-a_words_swapped",
    "ex10-lanes_without_a_row_leave",
    "ex11-consumers_phase_never_flips",
    "ex11-whole_stage_announced",
    "ex11-released_before_read",
    "ex12-never_promoted",
    "ex12-scales_of_the_block_before",
    "ex13-fence_after_counting",
    "ex13-own_part_first",
    "ex13-added_to_what_was_there",
    "ex15-empty_expert_returns",
    "ex09-scale_once_first",
    "ex09-divides_by_scale_of_w",
    "ex09-not_saturated",
    "ex09-zero_block_divides_by_zero",
    "ex09-tail_block_dropped",
}


def params():
    for name, mutant in MUTANTS.items():
        yield pytest.param(mutant, id=name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("mutant", list(params()))
def test_is_rejected_by_the_check_it_names(mutant, runner):
    graded, _ = mutants.grade(mutant, runner, seed=20)
    status = mutants.status(graded, mutant.caught_by)
    if status == "not run":
        pytest.skip("NOT RUN: the compiler's typing is missing here")
    assert status == "failed"
    text = next(check.text for check in graded.checks if check.name == mutant.caught_by)
    assert "Traceback" not in text
    assert "What:" in text
    assert graded.points()[0] < graded.points()[1]


def test_quick_names_exist():
    assert set(MUTANTS) >= QUICK


def test_there_are_enough_of_them():
    for exercise in {mutant.exercise for mutant in MUTANTS.values()}:
        assert sum(mutant.exercise == exercise for mutant in MUTANTS.values()) >= 10


def test_every_misconception_has_a_text_and_a_mutant():
    used = {mutant.misconception for mutant in MUTANTS.values()}
    assert used == set(misconceptions.texts())


def test_signatures_belong_to_the_mutants():
    for exercise in {mutant.exercise for mutant in MUTANTS.values()}:
        of_exercise = [mutant for mutant in MUTANTS.values() if mutant.exercise == exercise]
        keys = {mutant.misconception for mutant in of_exercise}
        assert {key for key, _ in misconceptions.signatures(exercise)} <= keys


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_right_misconception_is_named_for_four_in_five():
    examined = mutants.examine(33, list(api.graders()))
    right = sum(
        mutants.named(graded, mutant.caught_by) == mutant.misconception for mutant, graded, _ in examined
    )
    assert right >= 0.8 * len(examined)


def test_a_pattern_that_nobody_has_seen_is_not_named():
    known = misconceptions.signatures("ex02_launches")
    assert misconceptions.likeliest({"raises:ZeroDivisionError", "sometimes:nan"}, known) == ""


def test_a_formula_decides_where_no_signature_is_close():
    signs = {"equals:wrong-experts-weights (next)", "values", "sometimes:odd rows"}
    assert misconceptions.likeliest(signs, ()) == "wrong-experts-weights"


def test_nothing_is_named_by_how_much_is_wrong_alone():
    known = [("bias-by-row", frozenset({"values", "every row", "case:one expert"}))]
    assert misconceptions.likeliest({"values", "every row", "case:one expert"}, known) == ""


def test_what_is_not_graded_again_stays_as_it_is():
    assert mutants.table([], mutants.kept_rows([])) == mutants.TABLE.read_text(encoding="utf-8")
    kept = mutants.kept_signatures([])
    assert mutants.signatures([], kept) == misconceptions.SIGNATURES.read_text(encoding="utf-8")
    assert set(kept) - set(mutants.kept_signatures(["ex07_masked"])) == {"ex07_masked"}
    assert not any("ex07" in row for row in mutants.kept_rows(["ex07_masked"]))
