"""A grade: checks with their points, and what may be claimed from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class CheckResult:
    """One check of one submission.

    Attributes:
        exercise: the submission's name.
        name: of the test function.
        title: what it says.
        points: what passing it is worth.
        status: passed, failed, not run, or error (the grader's own).
        text: feedback, or why it was not run.
        feedback: the same in parts.
        hidden: an instructor's check.
        seconds: how long it took.
    """

    exercise: str
    name: str
    title: str
    points: int
    status: str = "error"
    text: str = ""
    feedback: dict[str, Any] = field(default_factory=dict)
    hidden: bool = False
    seconds: float = 0.0

    @property
    def earned(self) -> int:
        """Points for a check that was passed, else none."""
        return self.points if self.status == "passed" else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass
class Grade:
    """All checks of a run."""

    checks: list[CheckResult] = field(default_factory=list)
    seed: int | None = None

    @property
    def exercises(self) -> list[str]:
        """Names of the exercises, in order."""
        return list(dict.fromkeys(check.exercise for check in self.checks))

    def of(self, exercise: str) -> list[CheckResult]:
        """The checks of one exercise."""
        return [check for check in self.checks if check.exercise == exercise]

    def points(self, exercise: str | None = None) -> tuple[int, int]:
        """(earned, possible) points; what was not run is in neither."""
        counted = [
            check for check in self.checks if check.status != "not run" and exercise in (None, check.exercise)
        ]
        return sum(check.earned for check in counted), sum(check.points for check in counted)

    def verdict(self, exercise: str) -> str:
        """What is true of an exercise, and no more."""
        checks = self.of(exercise)
        failed = [check for check in checks if check.status in ("failed", "error")]
        not_run = sum(check.status == "not run" for check in checks)
        rest = f" ({not_run} NOT RUN)" if not_run else ""
        if failed:
            return f"{len(failed)} of {len(checks)} checks failed{rest}"
        public = "" if any(check.hidden for check in checks) else "public "
        return (
            f"All {public}checks passed{rest}" if not not_run else f"All {public}checks that ran passed{rest}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        earned, possible = self.points()
        return {
            "seed": self.seed,
            "points": earned,
            "possible": possible,
            "exercises": {
                name: dict(zip(("points", "possible"), self.points(name), strict=True))
                | {"verdict": self.verdict(name), "checks": [check.as_dict() for check in self.of(name)]}
                for name in self.exercises
            },
        }
