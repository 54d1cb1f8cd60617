"""A wrong solution meets the checker in front of a class: what changes, who objects, and what is said.

The wrong solution lives in a temporary folder, so nothing has to be put back, whenever it is interrupted.
"""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.terminal_theme import MONOKAI

from gemm_lessons.authoring import mutants
from gemm_lessons.authoring.mutants import Mutant
from gemm_lessons.grading import api
from gemm_lessons.grading.grade import Grade
from gemm_lessons.grading.runner import Runner
from gemm_lessons.grading.stub import BEGIN, END, STUB

WIDTH = 80  # columns that can be read from the last row
SEED = 5  # the same numbers every time: a lecture should hold no surprises
PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>A wrong solution</title>
<style>{stylesheet} body {{ color: {foreground}; background: {background}; }}
pre {{ font: 26px/1.35 monospace; margin: 1em auto; width: 80ch; }}</style>
<pre>{code}</pre>
"""


class UnknownBreakError(ValueError):
    """No wrong solution has this name; the message lists those that exist."""


def of_lesson(lesson: str) -> list[Mutant]:
    """The wrong solutions of a lesson's exercise.

    Raises:
        UnknownBreakError: the lesson has none here.
    """
    number = f"ex{int(lesson):02d}" if lesson.isdigit() else lesson
    found = [one for one in mutants.mutants() if one.exercise.startswith(number)]
    if not found:
        raise UnknownBreakError(f"lesson {lesson} has no wrong solutions here: they are in tests/mutants")
    return found


def find(lesson: str, name: str) -> Mutant:
    """One of them, by name.

    Raises:
        UnknownBreakError: there is none of this name.
    """
    known = {one.name: one for one in of_lesson(lesson)}
    if name not in known:
        raise UnknownBreakError(f"lesson {lesson} has no {name!r}: use one of {', '.join(known)}")
    return known[name]


def show_list(lesson: str, console: Console) -> None:
    """Name a lesson's wrong solutions and what each gets wrong."""
    table = Table("--break", "what it gets wrong", title=f"Lesson {lesson}")
    for one in of_lesson(lesson):
        table.add_row(one.name, escape(one.story))
    console.print(table)


def perform(mutant: Mutant, console: Console, page: Path | None = None) -> Grade:
    """Show a wrong solution, let the checker judge it, and show what it says.

    Args:
        mutant: which.
        console: where.
        page: also written as a page with large type, for a projector.
    """
    out = Console(record=True, width=WIDTH, force_terminal=console.is_terminal, highlight=False)
    out.print(Panel(f"[bold]{escape(mutant.story)}[/]", title=f"{mutant.exercise}: {mutant.name}"))
    for line in difference(mutant):
        colour = {"+": "green", "-": "red"}.get(line[:1], "default")
        out.print(f"[{colour}]{escape(line)}[/]")
    out.print("\n[dim]The checker is at work ...[/]")
    runner = Runner("sim")
    try:
        graded, _ = mutants.grade(mutant, runner, SEED)
    finally:
        runner.close()
    verdicts = Table("check", "", show_edge=False)
    for check in graded.checks:
        colour = {"passed": "green", "failed": "bold red"}.get(check.status, "dim")
        verdicts.add_row(escape(check.title), f"[{colour}]{check.status}[/]")
    out.print(verdicts)
    said = next((check for check in graded.checks if check.name == mutant.caught_by), None)
    if said is not None and said.status == "failed":
        text = "\n".join(" ".join(line.split()) for line in said.text.splitlines())
        out.print(Panel(escape(text), title=f"[bold]{escape(said.title)}[/]"))
    out.print("[dim]It ran in a temporary folder: your files are as they were.[/]")
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(out.export_html(theme=MONOKAI, code_format=PAGE), encoding="utf-8")
        console.print(f"written, for a projector: {page}", soft_wrap=True)
    return graded


def difference(mutant: Mutant) -> list[str]:
    """The lines by which the wrong solution differs from the right one, with a little around them."""
    right = (api.ROOT / "solutions" / f"{mutant.exercise}.py").read_text(encoding="utf-8")
    changes = mutant.source.removeprefix(f"{right}\n\n")
    before, after = _functions(_without_stubs(right)), _functions(changes)
    lines: list[str] = []
    for name, text in after.items():
        hunks = difflib.unified_diff(before.get(name, []), text, n=2, lineterm="")
        lines += [line for line in list(hunks)[2:] if not line.startswith("@@")]
    return lines


def _functions(source: str) -> dict[str, list[str]]:
    """The lines of each function, without its docstring."""
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            body = lines[first - 1 : node.end_lineno]
            text = node.body[0]
            if ast.get_docstring(node) and text.end_lineno:
                body = body[: text.lineno - first] + body[text.end_lineno - first + 1 :]
            found[node.name] = body
    return found


def _without_stubs(solution: str) -> str:
    kept, inside = [], False
    for line in solution.splitlines():
        mark = line.strip()
        inside = (inside or mark.startswith(STUB)) and not mark.startswith(END)
        if not inside and not mark.startswith((BEGIN, END)):
            kept.append(line)
    return "\n".join(kept)
