"""The commands around the grader."""

import pytest
import typer
from typer.testing import CliRunner

from gemm_lessons.grading import commands, workshop
from grading.helpers import SOLUTIONS

app = typer.Typer()
commands.register(app)


@pytest.fixture
def invoke(tmp_path):
    return lambda *words: CliRunner().invoke(app, [*words, "--submission", str(tmp_path)])


def test_hints_become_franker_and_are_counted(invoke):
    first, second = invoke("hint", "2", "expert_kernel"), invoke("hint", "ex02", "expert_kernel")
    assert "hint 1 of 3" in first.output
    assert "hint 2 of 3" in second.output
    invoke("hint", "2", "expert_kernel")
    assert "hint 3 of 3" in invoke("hint", "2", "expert_kernel").output
    assert "3" in invoke("status").output


def test_an_unknown_exercise_or_part_is_one_sentence(invoke):
    for words in (("hint", "77"), ("hint", "2", "nothing"), ("hint", "2", "expert_kernel", "--level", "9")):
        done = invoke(*words)
        assert done.exit_code == 2
        assert "Traceback" not in done.output


def test_reset_keeps_a_backup(invoke, tmp_path):
    path = tmp_path / "ex03_concatenated.py"
    path.write_text("my work")
    assert invoke("reset", "3").exit_code == 0
    assert "# >>> fill" in path.read_text()
    assert [backup.read_text() for backup in tmp_path.glob("*.bak")] == ["my work"]
    assert "Your file is now" not in invoke("reset", "3").output, "an untouched stub needs no backup"


def test_grade_remembers_the_points(invoke, tmp_path):
    (tmp_path / "ex01_padding.py").write_text(SOLUTIONS["ex01_padding"].read_text("utf-8"))
    assert invoke("grade", "1", "--seed", "4").exit_code == 0
    assert workshop.state(tmp_path)["ex01_padding"]["points"] == 12
    assert "12 of 12" in invoke("status").output


def test_watching_sees_every_save_and_waits_for_missing_files(tmp_path):
    path = tmp_path / "ex01_padding.py"
    moments = iter(
        [
            lambda: path.write_text("one"),
            lambda: None,
            lambda: path.unlink(),
            lambda: path.write_text("another"),
        ]
    )
    seen = workshop.changes(path, sleep=lambda _: next(moments)())
    next(seen)
    assert path.read_text() == "one"
    next(seen)
    assert path.read_text() == "another"


def test_a_damaged_state_file_is_no_disaster(tmp_path):
    (tmp_path / ".grades").mkdir()
    (tmp_path / ".grades" / "state.json").write_text("not json")
    assert workshop.state(tmp_path) == {}


def test_a_notebook_shows_table_reason_and_picture():
    from gemm_lessons.grading import notebook

    wrong = SOLUTIONS["ex02_launches"].read_text("utf-8").replace("first = last\n", "first = 0\n")
    shown = notebook.check("ex02", wrong, seed=3)
    page = shown._repr_html_()
    assert "data:image/png" in page
    assert "Likely reason" in page
    assert "failed" in repr(shown)
    assert "The start of the expert" in page
