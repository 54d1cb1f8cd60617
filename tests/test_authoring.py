"""What is generated is renewed, and nobody's work is overwritten without being asked for."""

import json
import subprocess

import pytest

from gemm_lessons.authoring import __main__ as authoring
from gemm_lessons.authoring import readme
from gemm_lessons.grading.stub import stub_of

SOLUTION = """def f():
    # >>> fill (about 1 line): it
    return 1
    # --- stub
    return None
    # <<< fill
"""
README = "<!-- ladder:begin --><!-- ladder:end --><!-- tensor:begin --><!-- tensor:end -->\n"
STUB, NOTEBOOK = "exercises/ex01_x.py", "notebooks/01_x.ipynb"


def git(root, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


def notebook(source):
    cell = {"cell_type": "code", "source": f"# as in module.py: f\n{source}"}
    return json.dumps({"cells": [cell]})


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository whose generated files are out of date, all of it committed."""
    monkeypatch.setattr(readme, "newest", dict)
    for folder in ("solutions", "exercises", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "solutions" / "ex01_x.py").write_text(SOLUTION)
    (tmp_path / "module.py").write_text("def f():\n    return 1\n")
    (tmp_path / "README.md").write_text(README)
    (tmp_path / STUB).write_text("old\n")
    (tmp_path / NOTEBOOK).write_text(notebook("old"))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


def test_what_is_out_of_date_is_named_and_renewed(checkout, capsys):
    assert authoring.check(checkout) == 1
    assert capsys.readouterr().err.count("run `make tables`") == 3
    assert authoring.write(checkout, overwrite=False) == 0
    assert (checkout / STUB).read_text() == stub_of(SOLUTION)
    assert "return 1" in (checkout / NOTEBOOK).read_text()
    assert authoring.check(checkout) == 0


def test_work_that_is_in_no_commit_stays(checkout, capsys):
    (checkout / STUB).write_text("mine\n")
    (checkout / NOTEBOOK).write_text(notebook("mine"))
    assert authoring.write(checkout, overwrite=False) == 1
    told = capsys.readouterr().err
    assert f"{STUB} holds work that is in no commit" in told
    assert f"{NOTEBOOK} holds work that is in no commit" in told
    assert (checkout / STUB).read_text() == "mine\n"
    assert "mine" in (checkout / NOTEBOOK).read_text()
    assert authoring.write(checkout, overwrite=True) == 0
    assert authoring.check(checkout) == 0


def test_without_a_repository_all_work_stays(checkout):
    (checkout / ".git").rename(checkout / "no-git")
    assert authoring.write(checkout, overwrite=False) == 1
    assert (checkout / STUB).read_text() == "old\n"


def test_without_git_all_work_stays(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert authoring.not_committed(checkout, [STUB, "exercises/ex02_not_there.py"]) == [STUB]
