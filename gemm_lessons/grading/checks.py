"""How a grader file declares its checks; needs no pytest, so that a notebook can run them too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_ATTRIBUTE = "graded_check"


@dataclass(frozen=True)
class Check:
    """What a check is worth and what it says."""

    points: int
    title: str


def check(points: int, title: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a test function to be a check.

    Args:
        points: what passing it is worth.
        title: what it says, as the table shows it.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        setattr(function, _ATTRIBUTE, Check(points, title))
        return function

    return declare


def declared(function: Any) -> Check | None:
    """The check that a function is, if it is one."""
    found: Check | None = getattr(function, _ATTRIBUTE, None)
    return found
