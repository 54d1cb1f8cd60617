"""Wrong solutions shown to a class."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from gemm_lessons.authoring import live, mutants

ROOT = Path(__file__).resolve().parent.parent


def test_the_checker_objects_and_nothing_is_left_changed(tmp_path):
    before = {path: path.read_bytes() for path in (ROOT / "exercises").glob("*.py")}
    page = tmp_path / "page.html"
    graded = live.perform(live.find("05", "counter_not_atomic"), Console(quiet=True), page)
    assert mutants.status(graded, "test_clean") == "failed"
    text = page.read_text(encoding="utf-8")
    assert "font: 26px" in text
    assert "counters[0] += 1" in text
    assert {path: path.read_bytes() for path in (ROOT / "exercises").glob("*.py")} == before


def test_the_difference_is_what_the_mutant_changes():
    lines = live.difference(live.find("05", "no_second_barrier"))
    assert [line for line in lines if line[0] in "+-"] == ["-        cuda.syncthreads()"]


def test_every_wrong_solution_differs_from_the_right_one():
    for mutant in mutants.mutants():
        assert live.difference(mutant), mutant.name


@pytest.mark.parametrize(("lesson", "name"), [("05", "nothing"), ("77", "x")])
def test_an_unknown_name_is_refused(lesson, name):
    with pytest.raises(live.UnknownBreakError, match=f"lesson {lesson} has no"):
        live.find(lesson, name)


def test_what_instructors_are_told_to_show_exists():
    text = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
    exercises = {path.name[2:4] for path in (ROOT / "solutions").glob("ex*.py")}
    rows = re.findall(r"^\| (\d\d) .*\| ([^|]*) \|$", text, flags=re.MULTILINE)
    assert exercises <= {lesson for lesson, _ in rows}
    for lesson, shown in rows:
        for name in re.findall(r"`(\w+)`", shown):
            assert live.find(lesson, name)
