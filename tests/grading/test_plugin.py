"""`pytest exercises` as a student and an instructor meet it."""

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from gemm_lessons.authoring import stubs
from grading.helpers import ROOT, SOLUTIONS


def run_pytest(*arguments, cwd=ROOT, **environment):
    env = os.environ | {"PYTHONPATH": str(ROOT), "GEMM_LESSONS_DEVICE": "sim", "COLUMNS": "100"} | environment
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *map(str, arguments),
    ]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_a_stub_is_told_what_is_missing(tmp_path):
    stubs.write_stubs(tmp_path)
    report, gradescope, junit = tmp_path / "grade.json", tmp_path / "results.json", tmp_path / "junit.xml"
    done = run_pytest(
        ROOT / "exercises" / "test_ex02_launches.py",
        *("--submission", tmp_path, "--pictures", tmp_path, "--seed", "5"),
        *("--grade-json", report, "--gradescope", gradescope, f"--junitxml={junit}"),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "Nothing was written to y" in done.stdout
    assert "--seed 5" in done.stdout
    assert "NOT RUN" in done.stdout
    grade = json.loads(report.read_text())
    assert grade["seed"] == 5
    assert grade["exercises"]["ex02_launches"]["points"] == 1
    scores = json.loads(gradescope.read_text())["tests"]
    assert sum(test["score"] for test in scores) == 1
    assert any("NOT RUN" in test["output"] and test["max_score"] == 0 for test in scores)
    assert ElementTree.parse(junit).getroot().find("testsuite").get("failures") not in (None, "0")
    assert (tmp_path / "ex02_launches.png").exists()


def test_a_solution_is_told_no_more_than_is_true():
    began = time.monotonic()
    done = run_pytest(ROOT / "exercises" / "test_ex01_padding.py", "--submission", ROOT / "solutions")
    assert done.returncode == 0
    assert "All public checks passed." in done.stdout
    assert "12 of 12 points" in done.stdout
    assert time.monotonic() - began < 60, "feedback takes seconds, also on a busy machine"


def test_hidden_cases_and_a_secret_seed(tmp_path):
    secret = tmp_path / "instructor.toml"
    secret.write_text(
        'seed = 987654\n[[case]]\nexercise = "ex02_launches"\ncounts = [0, 177, 1]\nN = 33\nK = 7\n'
    )
    wrong = SOLUTIONS["ex02_launches"].read_text("utf-8").replace("if count > 0:", "if 0 < count < 170:")
    (tmp_path / "ex02_launches.py").write_text(wrong)
    done = run_pytest(
        ROOT / "exercises" / "test_ex02_launches.py",
        *("--submission", tmp_path, "--pictures", tmp_path, "--grade-json", tmp_path / "grade.json"),
        GEMM_LESSONS_INSTRUCTOR=str(secret),
    )
    assert done.returncode == 1
    assert "hidden-1" in done.stdout
    text = done.stdout + (tmp_path / "grade.json").read_text()
    assert "987654" not in text, "a secret seed stays secret"
    # why digits and stops around it are refused: pytest prints its own figures, as in "in 4.77s"
    assert not re.search(r"(?<![\d.-])177(?!\.?\d)", done.stdout), "a hidden case stays hidden"
    grade = json.loads((tmp_path / "grade.json").read_text())
    failed = [check for check in grade["exercises"]["ex02_launches"]["checks"] if check["status"] == "failed"]
    assert [check["hidden"] for check in failed] == [True]


def test_a_missing_file_and_broken_syntax_are_sentences(tmp_path):
    done = run_pytest(ROOT / "exercises" / "test_ex01_padding.py", "--submission", tmp_path)
    assert "ex01_padding.py is missing" in done.stdout.replace("\n", "")
    (tmp_path / "ex01_padding.py").write_text("def f(:\n")
    done = run_pytest(ROOT / "exercises" / "test_ex01_padding.py", "--submission", tmp_path)
    assert "no valid Python" in done.stdout
    assert "line 1: def f(:" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_every_exercise_at_once(tmp_path):
    done = run_pytest(
        ROOT / "exercises", "--submission", ROOT / "solutions", "--grade-json", tmp_path / "grade.json"
    )
    assert done.returncode == 0
    grade = json.loads((tmp_path / "grade.json").read_text())
    assert list(grade["exercises"]) == list(SOLUTIONS)
