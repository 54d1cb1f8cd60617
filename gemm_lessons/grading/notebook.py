"""The grader in a notebook: `check("ex02")` shows the table, the first failure, and its heatmap.

from gemm_lessons.grading.notebook import check
check("ex02")                    # the file exercises/ex02_launches.py
check("ex02", source=In[5])      # or a cell's text
"""

from __future__ import annotations

import html
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gemm_lessons.grading import api, heatmap
from gemm_lessons.grading.grade import CheckResult, Grade
from gemm_lessons.grading.student import Student

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOUR = {"passed": "#00795a", "failed": "#b34700", "not run": "#7a6a00", "error": "#8a2be2"}


class Shown:
    """A grade that a notebook displays.

    Attributes:
        grade: all checks.
        figure: the heatmap of the first wrong output, None if there is none.
    """

    def __init__(self, grade: Grade, student: Student) -> None:
        self.grade = grade
        self.figure: Figure | None = None
        if student.last_judgement is not None and student.last_judgement.wrong.any():
            self.figure = heatmap.figure(student.last_judgement)

    @property
    def first_failure(self) -> CheckResult | None:
        """The check to look at first."""
        return next((check for check in self.grade.checks if check.status in ("failed", "error")), None)

    def __repr__(self) -> str:
        lines = [
            f"{check.status:<8} {check.earned}/{check.points}  {check.title}" for check in self.grade.checks
        ]
        lines += [f"{self.grade.verdict(name)}." for name in self.grade.exercises]
        failure = self.first_failure
        return "\n".join([*lines, *([failure.title, failure.text] if failure else [])])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align:left'>{html.escape(check.title)}</td>"
            f"<td>{check.earned}/{check.points}</td>"
            f"<td style='text-align:left;color:{_COLOUR[check.status]}'><b>{check.status}</b></td></tr>"
            for check in self.grade.checks
        )
        verdicts = " ".join(f"{html.escape(self.grade.verdict(name))}." for name in self.grade.exercises)
        failure = self.first_failure
        told = ""
        if failure is not None:
            told = f"<b>{html.escape(failure.title)}</b><pre>{html.escape(failure.text)}</pre>"
        return f"<table>{rows}</table><p><b>{verdicts}</b></p>{told}{self._picture()}"

    def _picture(self) -> str:
        if self.figure is None:
            return ""
        import base64
        import io

        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110)
        data = base64.b64encode(buffer.getvalue()).decode()
        return f"<img alt='share of each tile that is wrong' src='data:image/png;base64,{data}'/>"


def check(exercise: str, source: str | None = None, *, seed: int | None = None) -> Shown:
    """Grade an exercise in the simulator and show what is right and what is wrong.

    Args:
        exercise: its name, or the beginning of it: "2", "ex02".
        source: the submission's text; the file in `exercises/` if not given.
        seed: of cases and inputs; random if not given.
    """
    if source is None:
        return Shown(*api.grade_file(exercise, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{api.find(exercise)}.py"
        path.write_text(source, encoding="utf-8")
        return Shown(*api.grade_file(exercise, path, seed=seed))
