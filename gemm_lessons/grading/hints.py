"""Hints of rising frankness: a question, the mechanism, nearly the code."""

from __future__ import annotations

import tomllib
from pathlib import Path


class HintError(ValueError):
    """An exercise without hints."""


def parts(path: Path, exercise: str) -> dict[str, list[str]]:
    """The hints of each part of an exercise, by the function's name.

    Raises:
        HintError: the exercise has none.
    """
    with path.open("rb") as file:
        known = tomllib.load(file)
    if exercise not in known:
        raise HintError(f"there are no hints for {exercise}: there are some for {', '.join(known)}")
    return {part: list(hints) for part, hints in known[exercise].items()}
