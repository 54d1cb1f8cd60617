"""What an instructor adds without touching a file that students have: hidden cases and a secret seed.

`GEMM_LESSONS_INSTRUCTOR` names a TOML file outside of the students' folders:

    seed = 20261123

    [[case]]
    exercise = "ex02_launches"
    counts = [0, 9, 0, 1]
    N = 33
    K = 7
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemm_lessons.grading.cases import Case

VARIABLE = "GEMM_LESSONS_INSTRUCTOR"


class InstructorError(ValueError):
    """The instructor's file cannot be understood; the message says where."""


@dataclass(frozen=True)
class Instructor:
    """Secret seed, and hidden cases by exercise."""

    seed: int | None = None
    hidden: dict[str, list[Case]] = field(default_factory=dict)

    def cases(self, exercise: str) -> list[Case]:
        """Hidden cases of one exercise."""
        return self.hidden.get(exercise, [])


def load() -> Instructor:
    """Read the instructor's file, and forget where it is, so that no other process inherits the name.

    Raises:
        InstructorError: the file is missing or malformed.
    """
    path = os.environ.pop(VARIABLE, "")
    if not path:
        return Instructor()
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        hidden: dict[str, list[Case]] = {}
        for entry in content.get("case", []):
            hidden.setdefault(str(entry["exercise"]), []).append(_case(entry))
        seed = content.get("seed")
        return Instructor(None if seed is None else int(seed), hidden)
    except OSError as error:
        raise InstructorError(f"{VARIABLE} names {path}, which cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise InstructorError(f"{path}: {error}") from error


def _case(entry: dict[str, Any]) -> Case:
    case = Case(tuple(int(count) for count in entry["counts"]), int(entry["N"]), int(entry["K"]), hidden=True)
    case.problem  # noqa: B018  why: it checks the numbers
    return case
