"""A stub is its solution without the parts that a student writes.

# >>> fill (about 3 lines): what to do
the solution
# --- stub
what stands there instead: valid Python, that is never reached or does nothing in the solution
# <<< fill
"""

from __future__ import annotations

BEGIN, STUB, END = "# >>> fill", "# --- stub", "# <<< fill"


class MarkerError(ValueError):
    """The marks of a solution are not in order; the message names the line."""


def stub_of(solution: str) -> str:
    """The text that students get: every filled region replaced by its stub.

    Raises:
        MarkerError: a mark is missing, doubled or out of order, or there is nothing to fill.
    """
    lines: list[str] = []
    expected = BEGIN
    following = {BEGIN: STUB, STUB: END, END: BEGIN}
    for number, line in enumerate(solution.splitlines(), 1):
        mark = next((mark for mark in following if line.strip().startswith(mark)), None)
        if mark is not None:
            if mark != expected:
                raise MarkerError(f"line {number} is {mark!r}, but {expected!r} comes next")
            expected = following[mark]
        if mark == STUB or (mark is None and expected == STUB):
            continue
        lines.append(line)
    if expected != BEGIN:
        raise MarkerError(f"the last region has no {expected!r}")
    if len(lines) == len(solution.splitlines()):
        raise MarkerError(f"there is nothing to fill: no {BEGIN!r}")
    return "\n".join(lines) + "\n"
