"""Which mistake fits what was seen: signatures of known wrong solutions, compared with this one.

A signature is a set of signs: in which case something is wrong and where, which wrong formula the wrong
outputs equal, what the simulator found, how often was launched.  `signatures.json` holds the signatures
of the wrong solutions that the grader is tested with; `python -m gemm_lessons.authoring.mutants` makes it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIGNATURES = HERE / "signatures.json"
TEXTS = HERE / "misconceptions.toml"

# How much a sign tells, by what it begins with.
WEIGHTS = {
    "equals": 4.0,
    "launches": 3.0,
    "reads": 3.0,
    "executes": 3.0,
    "finding": 2.0,
    "raises": 2.0,
    "stopped": 2.0,
    "often": 0.6,
    "sometimes": 0.3,
    "case": 0.3,
    "found": 0.02,  # decides between mistakes that the simulator reports alike, and nothing else
}
LEAST_LIKENESS = 0.5  # below this, no guess is better than a wrong one
SAME = 0.85

_MEANS = {
    "finding:launch:empty expert": "launches-for-empty",
    "launches:every expert": "launches-for-empty",
    "launches:every row": "launch-per-row",
    "launches:twice": "launched-twice",
    "executes:mma:never": "no-tensor-cores",
}
_VAGUE_KINDS = {"case", "found", "sometimes", "often"}
_VAGUE = {"values", "every row", "all"}
_TELLING_KINDS = {"equals", "launches", "reads", "executes", "finding", "raises", "stopped"}
_TELLING = {
    "zeros",
    "zeros unwritten",
    "row tail",
    "column tail",
    "odd rows",
    "even rows",
    "first rows",
    "last rows",
    "last row of all",
    "first column",
    "last column",
    "guards",
}


@dataclass(frozen=True)
class Misconception:
    """A mistake that people make.

    Attributes:
        key: its name in files.
        title: what it is.
        why: why it has the effect that was seen.
        look: what to look at next.
    """

    key: str
    title: str
    why: str
    look: str


@cache
def texts() -> dict[str, Misconception]:
    """Every misconception, by key."""
    with TEXTS.open("rb") as file:
        return {key: Misconception(key, **text) for key, text in tomllib.load(file).items()}


@cache
def signatures(exercise: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """(misconception, signs) of every known wrong solution of an exercise."""
    if not SIGNATURES.exists():
        return ()
    known = json.loads(SIGNATURES.read_text(encoding="utf-8")).get(exercise, {})
    return tuple((entry["misconception"], frozenset(entry["signs"])) for entry in known.values())


def likeness(one: Iterable[str], other: Iterable[str]) -> float:
    """How much two signatures have in common: weight of the shared signs over that of all, 0 to 1."""
    one, other = set(one), set(other)
    whole = sum(map(_weight, one | other))
    return sum(map(_weight, one & other)) / whole if whole else 0.0


def likeliest(signs: Iterable[str], known: Iterable[tuple[str, frozenset[str]]]) -> str:
    """The misconception that fits best; empty if none fits well.

    A signature that is nearly the same decides.  Else a wrong formula whose result all wrong outputs equal
    does, if there is just one.  Else the signature that is most like these signs, if it shares something
    telling with them.
    """
    signs = set(signs)
    telling = {sign for sign in signs if is_telling(sign)}
    ranked = sorted(
        ((likeness(signs, each), key, each) for key, each in known), reverse=True, key=lambda r: r[:2]
    )
    if ranked and ranked[0][0] >= SAME and not all(map(is_vague, ranked[0][2])):
        return ranked[0][1]
    ranked = [item for item in ranked if telling & item[2]]
    formulas = {key for key in map(meaning, signs) if key}
    if len(formulas) == 1:
        return formulas.pop()
    if formulas:
        return next((key for _, key, _ in ranked if key in formulas), "")
    return ranked[0][1] if ranked and ranked[0][0] >= LEAST_LIKENESS else ""


def meaning(sign: str) -> str:
    """The misconception that a sign names by itself: mostly the formula that all wrong outputs equal."""
    if sign in _MEANS:
        return _MEANS[sign]
    if not sign.startswith("equals:"):
        return ""
    key = sign.split(":")[-1].split(" (")[0]
    return key if key in texts() else ""  # a formula without a text is a sign like others


def is_vague(sign: str) -> bool:
    """Whether a sign only says how much is wrong, or where by chance."""
    return sign.split(":")[0] in _VAGUE_KINDS or sign in _VAGUE


def is_telling(sign: str) -> bool:
    """Whether a sign says more than that much is wrong."""
    return sign.split(":")[0] in _TELLING_KINDS or sign in _TELLING


def _weight(sign: str) -> float:
    return WEIGHTS.get(sign.split(":")[0], 1.0)
