"""`gemm-lessons grade | hint | status | reset | watch`; `register(app)` adds them to the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gemm_lessons.grading import api, hints, outputs, workshop
from gemm_lessons.grading.runner import Runner
from gemm_lessons.grading.stub import stub_of

console = Console(highlight=False)

Name = Annotated[str, typer.Argument(help="An exercise: 2, ex02, or its full name.")]
Names = Annotated[
    list[str] | None, typer.Argument(help="Exercises, such as 2 or ex02; all if none is given.")
]
Folder = Annotated[Path, typer.Option("--submission", help="The folder with your files.")]
Seed = Annotated[int | None, typer.Option(help="Seed of cases and inputs; random if not given.")]
Part = Annotated[
    str, typer.Argument(help="A function of the exercise; if none is given, the only one, or a list of them.")
]
Level = Annotated[int | None, typer.Option(help="1, 2 or 3; the next one if not given.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the grade as JSON.")]
GradescopeFile = Annotated[Path | None, typer.Option(help="Write the JSON that Gradescope reads.")]


def _exercise(name: str) -> str:
    try:
        return api.find(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def grade(
    names: Names = None,
    submission: Folder = api.EXERCISES,
    seed: Seed = None,
    json: JsonFile = None,
    gradescope: GradescopeFile = None,
) -> None:
    """Grade exercises: points for each check, and what is wrong where.  `pytest exercises` does the same."""
    files = [str(api.graders()[_exercise(name)]) for name in names or api.graders()]
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-rN", "-p", "no:cacheprovider", *files]
    command += ["--submission", str(submission), "--pictures", str(submission / ".grades")]
    command += [] if seed is None else ["--seed", str(seed)]
    report = json or submission / ".grades" / "grade.json"
    report.unlink(missing_ok=True)  # why: an old grade must not pass for a new one
    command += ["--grade-json", str(report)]
    command += [] if gradescope is None else ["--gradescope", str(gradescope)]
    code = subprocess.run(command, check=False).returncode
    workshop.remember_report(submission, report)
    raise typer.Exit(code)


def hint(name: Name, part: Part = "", level: Level = None, submission: Folder = api.EXERCISES) -> None:
    """Give the next hint for a part of an exercise: a question, the mechanism, nearly the code."""
    exercise = _exercise(name)
    path = api.EXERCISES / "hints.toml"
    known = hints.parts(path, exercise)
    if not part and len(known) == 1:
        (part,) = known
    if not part:
        console.print(f"{exercise} has hints for: {', '.join(known)}")
        console.print(f"gemm-lessons hint {name} {next(iter(known))}", style="dim")
        return
    if part not in known:
        raise typer.BadParameter(f"{exercise} has no part {part!r}: use one of {', '.join(known)}")
    level = level or workshop.next_hint(submission, exercise, part, len(known[part]))
    if level > len(known[part]):
        raise typer.BadParameter(f"hint {level} does not exist: use 1 to {len(known[part])}")
    text = known[part][level - 1]
    console.print(f"[bold]{part}, hint {level} of {len(known[part])}:[/] {escape(text)}")


def status(submission: Folder = api.EXERCISES) -> None:
    """Show how far you are."""
    known = workshop.state(submission)
    table = Table("exercise", "points", "last result", "hints taken")
    for exercise in api.graders():
        facts = known.get(exercise, {})
        points = f"{facts['points']} of {facts['possible']}" if "points" in facts else "-"
        taken = sum(int(level) for key, level in facts.items() if key.startswith(workshop.HINTS_KEY))
        table.add_row(exercise, points, str(facts.get("verdict", "not graded yet")), str(taken))
    console.print(table)


def reset(name: Name, submission: Folder = api.EXERCISES) -> None:
    """Start an exercise again; your file is kept beside it, with the ending .bak."""
    exercise = _exercise(name)
    source = api.ROOT / "solutions" / f"{exercise}.py"
    path = submission / f"{exercise}.py"
    backup = workshop.reset(path, stub_of(source.read_text(encoding="utf-8")))
    kept = f" Your file is now {backup.name}." if backup else ""
    console.print(f"{path.name} is as it was at the start.{kept}")


def watch(name: Name, submission: Folder = api.EXERCISES) -> None:
    """Grade again whenever you save.  Ctrl-C ends it."""
    exercise = _exercise(name)
    path = submission / f"{exercise}.py"
    console.print(f"Watching {path} by looking at it twice a second; Ctrl-C ends it.", style="dim")
    runner = Runner("sim")
    runner.start()
    try:
        for _ in workshop.changes(path):
            graded, _student = api.grade_file(
                exercise, path, runner=runner, pictures=submission / ".grades", compile_it=True
            )
            console.clear()
            first = next((check for check in graded.checks if check.status == "failed"), None)
            outputs.print_grade(graded, console)
            if first is not None:
                console.print(f"\n[bold]{escape(first.title)}[/]\n{escape(first.text)}")
            workshop.remember_grade(submission, graded)
    except KeyboardInterrupt:
        console.print("Stopped watching.")
    finally:
        runner.close()


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (grade, hint, status, reset, watch):
        app.command()(command)
