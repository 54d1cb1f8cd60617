"""A student's folder: progress that is remembered, a clean start with a backup, and watching for changes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from gemm_lessons.grading.grade import Grade

STATE = ".grades/state.json"
POLL_SECONDS = 0.5
HINTS_KEY = "hints"


def state(folder: Path) -> dict[str, dict[str, int | str]]:
    """What is known about each exercise: points, possible, verdict, hints taken."""
    path = folder / STATE
    try:
        content: dict[str, dict[str, int | str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(folder: Path, exercise: str, **facts: int | str) -> None:
    """Keep facts about an exercise."""
    known = state(folder)
    known.setdefault(exercise, {}).update(facts)
    path = folder / STATE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def remember_grade(folder: Path, grade: Grade) -> None:
    """Keep the points of every exercise of a grade."""
    for exercise in grade.exercises:
        earned, possible = grade.points(exercise)
        remember(folder, exercise, points=earned, possible=possible, verdict=grade.verdict(exercise))


def remember_report(folder: Path, report: Path) -> None:
    """Keep the points of a grade that was written as JSON; none was written if pytest could not start."""
    if not report.exists():
        return
    for exercise, facts in json.loads(report.read_text(encoding="utf-8"))["exercises"].items():
        kept = {key: facts[key] for key in ("points", "possible", "verdict")}
        remember(folder, exercise, **kept)


def next_hint(folder: Path, exercise: str, part: str, most: int) -> int:
    """The level of the next hint for a part, remembered: 1, 2, 3, and then 3 again."""
    taken = state(folder).get(exercise, {})
    level = min(int(taken.get(f"{HINTS_KEY}:{part}", 0)) + 1, most)
    remember(folder, exercise, **{f"{HINTS_KEY}:{part}": level})
    return level


def reset(path: Path, stub: str) -> Path | None:
    """Put the stub back, and keep what was there under another name.

    Returns:
        Where the old file went, None if there was nothing to keep.
    """
    backup = None
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != stub:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        backup = path.with_name(f"{path.stem}.{stamp}.bak")
        number = 1
        while backup.exists():
            number += 1
            backup = path.with_name(f"{path.stem}.{stamp}-{number}.bak")
        backup.write_bytes(path.read_bytes())
    path.write_text(stub, encoding="utf-8")
    return backup


def changes(path: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Yield once now, and then whenever a file has been saved; looks twice a second, which works everywhere.

    A file that is missing for a moment, as some editors leave it, is waited for.
    """
    last: tuple[int, int, int] | None = None
    while True:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            sleep(POLL_SECONDS)
            continue
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != last:
            last = stamp
            yield
        sleep(POLL_SECONDS)
