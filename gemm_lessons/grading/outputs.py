"""A grade for people and for programs: Rich table, JSON, Gradescope's JSON.  JUnit XML is pytest's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gemm_lessons.grading.grade import CheckResult, Grade

_STYLE = {"passed": "green", "failed": "bold red", "not run": "yellow", "error": "bold magenta"}
_WORD = {"passed": "passed", "failed": "FAILED", "not run": "NOT RUN", "error": "grader error"}


def table(grade: Grade, exercise: str) -> Table:
    """The checks of one exercise."""
    earned, possible = grade.points(exercise)
    shown = Table(title=f"{exercise}: {earned} of {possible} points", title_justify="left", expand=False)
    shown.add_column("check")
    shown.add_column("points", justify="right")
    shown.add_column("result")
    for check in grade.of(exercise):
        reason = f": {check.text.removeprefix('NOT RUN: ')}" if check.status == "not run" else ""
        result = f"[{_STYLE[check.status]}]{_WORD[check.status]}[/]{escape(reason)}"
        shown.add_row(escape(check.title), f"{check.earned}/{check.points}", result)
    return shown


def print_grade(grade: Grade, console: Console | None = None) -> None:
    """Print every exercise's table, its verdict, and how to run the same again."""
    console = console or Console(highlight=False)
    for exercise in grade.exercises:
        console.print()
        console.print(table(grade, exercise))
        console.print(f"{grade.verdict(exercise)}.", style="bold")
    if grade.seed is not None:
        console.print(f"The same inputs again: --seed {grade.seed}", style="dim")


def write_json(grade: Grade, path: Path) -> None:
    """Everything about a grade."""
    _write(grade.as_dict(), path)


def write_gradescope(grade: Grade, path: Path) -> None:
    """What Gradescope's autograder reads from results.json."""
    tests = [_gradescope(check) for check in grade.checks]
    text = "\n".join(f"{name}: {grade.verdict(name)}." for name in grade.exercises)
    seconds = sum(check.seconds for check in grade.checks)
    _write(
        {"tests": tests, "output": text, "execution_time": round(seconds, 1), "visibility": "visible"}, path
    )


def _gradescope(check: CheckResult) -> dict[str, Any]:
    scored = check.status != "not run"
    return {
        "name": f"{check.exercise}: {check.title}",
        "score": check.earned if scored else 0,
        "max_score": check.points if scored else 0,
        "status": "passed" if check.status in ("passed", "not run") else "failed",
        "output": check.text if scored else f"NOT RUN, so it is not counted. {check.text}",
        "visibility": "after_published" if check.hidden else "visible",
    }


def _write(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
