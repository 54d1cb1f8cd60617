"""Wrong solutions, graded: the signatures that name misconceptions, and the table of kills.

`tests/mutants/exNN/*.py` hold only what they get wrong; the rest is the solution, above it.  Each names its
misconception and the check that must catch it.  `python -m gemm_lessons.authoring.mutants` grades them all
and writes `gemm_lessons/grading/signatures.json` and `docs/mutation_table.md`; `--check` fails if one of them
would change.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gemm_lessons.authoring import stubs
from gemm_lessons.grading import api, misconceptions
from gemm_lessons.grading.grade import Grade
from gemm_lessons.grading.runner import Runner
from gemm_lessons.grading.student import Student

ROOT = stubs.ROOT
TABLE = ROOT / "docs" / "mutation_table.md"
SEED = 1  # signatures are made with this one; tests grade with others
COMPILER_CHECK = "test_compiles"


@dataclass(frozen=True)
class Mutant:
    """A wrong solution.

    Attributes:
        exercise: such as "ex02_launches".
        name: of its file.
        story: what it gets wrong.
        misconception: key of the reason that the grader should name.
        caught_by: the check that must fail.
        source: a whole submission.
    """

    exercise: str
    name: str
    story: str
    misconception: str
    caught_by: str
    source: str


def whole(solution: str, changes: str) -> str:
    """A submission made of a solution and of definitions that replace some of it."""
    return f"{solution}\n\n{changes}"


def read(path: Path, root: Path = ROOT) -> Mutant:
    """Read one mutant.

    Raises:
        ValueError: it does not say what it gets wrong, or what must catch it.
    """
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    told = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.isupper()
        and isinstance(node.value, ast.Constant)
    }
    story = ast.get_docstring(tree)
    if not story or not {"MISCONCEPTION", "CAUGHT_BY"} <= set(told):
        raise ValueError(f"{path} needs a docstring, MISCONCEPTION and CAUGHT_BY")
    solution = next((root / "solutions").glob(f"{path.parent.name}_*.py"))
    source = whole(solution.read_text(encoding="utf-8"), text)
    return Mutant(solution.stem, path.stem, story, told["MISCONCEPTION"], told["CAUGHT_BY"], source)


def mutants(root: Path = ROOT) -> Iterator[Mutant]:
    """Every mutant, in order."""
    for path in sorted((root / "tests" / "mutants").glob("ex[0-9][0-9]/*.py")):
        yield read(path, root)


def grade(
    mutant: Mutant, runner: Runner, seed: int, *, compile_it: bool | None = None
) -> tuple[Grade, Student]:
    """Grade a mutant.

    Args:
        mutant: which.
        runner: where it runs.
        seed: of cases and inputs.
        compile_it: ask the compiler; only where it is the one to object, if not given.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{mutant.exercise}.py"
        path.write_text(mutant.source, encoding="utf-8")
        if compile_it is None:
            compile_it = mutant.caught_by == COMPILER_CHECK
        graded, student = api.grade_file(
            mutant.exercise, path, seed=seed, runner=runner, compile_it=compile_it
        )
    return graded, student


def status(graded: Grade, check: str) -> str:
    """The status of one check of a grade."""
    return next(result.status for result in graded.checks if result.name == check)


def named(graded: Grade, check: str) -> str:
    """The misconception that one check's feedback names; empty if none."""
    result = next(result for result in graded.checks if result.name == check)
    return str(result.feedback.get("likely", ""))


def examine(seed: int) -> list[tuple[Mutant, Grade, Student]]:
    """Grade all mutants, two at a time."""
    everything = list(mutants())
    halves = [everything[::2], everything[1::2]]

    def work(part: list[Mutant]) -> list[tuple[Mutant, Grade, Student]]:
        runner = Runner("sim")
        try:
            return [(mutant, *grade(mutant, runner, seed)) for mutant in part]
        finally:
            runner.close()

    with ThreadPoolExecutor(2) as pool:
        done = [item for part in pool.map(work, halves) for item in part]
    return sorted(done, key=lambda item: (item[0].exercise, item[0].name))


def signatures(examined: list[tuple[Mutant, Grade, Student]]) -> str:
    """The text of `signatures.json`."""
    content: dict[str, dict[str, object]] = {}
    for mutant, _, student in examined:
        if student.signs:
            entry = {"misconception": mutant.misconception, "signs": sorted(student.signs)}
            content.setdefault(mutant.exercise, {})[mutant.name] = entry
    return json.dumps(content, indent=1) + "\n"


def table(examined: list[tuple[Mutant, Grade, Student]]) -> str:
    """The text of `mutation_table.md`."""
    rows, totals = [], {}
    for mutant, graded, _ in examined:
        found = status(graded, mutant.caught_by)
        failed = [result.name for result in graded.checks if result.status == "failed"]
        killed = {"failed": "killed", "not run": "NOT RUN"}.get(found, "SURVIVED")
        right = named(graded, mutant.caught_by) == mutant.misconception
        counted = totals.setdefault(mutant.exercise, [0, 0, 0, 0])
        counted[0] += 1
        counted[1] += killed == "killed"
        counted[2] += killed == "NOT RUN"
        counted[3] += right
        rows.append(
            f"| {mutant.exercise} | {mutant.name} | {mutant.story} | `{mutant.caught_by}` | {killed}"
            f" | {len(failed)} | {'yes' if right else 'no'} |"
        )
    summary = [
        f"| {exercise} | {number} | {killed} | {not_run} | {right} ({right / number:.0%}) |"
        for exercise, (number, killed, not_run, right) in totals.items()
    ]
    return "\n".join(
        [
            "# The grader, tested with wrong solutions",
            "",
            "Generated by `python -m gemm_lessons.authoring.mutants`; do not edit. Device: checked simulator.",
            "",
            "A wrong solution is killed if the check that it names fails. NOT RUN: that check needs the compiler's",
            "typing, which was missing. The last column: that check's feedback names the right misconception.",
            "",
            "| exercise | wrong solutions | killed | NOT RUN | misconception named |",
            "|---|---|---|---|---|",
            *summary,
            "",
            "| exercise | wrong solution | what it gets wrong | must be caught by | result | failing checks | named |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gemm_lessons.authoring.mutants")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is stale")
    check = parser.parse_args().check
    examined = examine(SEED)
    written = {misconceptions.SIGNATURES: signatures(examined)}
    if not check:
        misconceptions.SIGNATURES.write_text(written[misconceptions.SIGNATURES], encoding="utf-8")
        misconceptions.signatures.cache_clear()
    written[TABLE] = table(examine(SEED + 1))  # why another seed: signatures must hold for any
    stale = [path for path, text in written.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run `python -m gemm_lessons.authoring.mutants`")
        else:
            path.write_text(written[path], encoding="utf-8")
    return bool(stale) and check


if __name__ == "__main__":
    sys.exit(main())
