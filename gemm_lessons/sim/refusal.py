"""What Numba's compiler has against a kernel, in a few lines that name the student's own."""

from __future__ import annotations

import os
import re
from typing import Any

_LOCATION = re.compile(r'File "([^"]+)", line (\d+)')
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOISE = re.compile(r"^(Failed in \w+ mode pipeline.*|During: .*|- Resolution failure.*)$")
_MOST_LINES = 12


def explain_refusal(error: BaseException, path: str) -> tuple[str, int]:
    """The compiler's reason without colours, places inside Numba and repetition.

    Args:
        error: what the compiler raised.
        path: the file with the kernel, to tell its lines from Numba's.

    Returns:
        The reason, and the line of the file that it is about (0: not known).
    """
    lines = [each.strip() for each in _COLOUR.sub("", str(error)).splitlines()]
    kept = [
        each
        for each in lines
        if each and not _NOISE.match(each) and not _LOCATION.search(each) and "^" not in each
    ]
    reason = "\n".join(kept[:_MOST_LINES])
    if re.search(r"Function\(<function (shared|local)\.array", reason):
        reason += "\nThe shape of a shared or local array must be known when the kernel is compiled."
    return reason, _line(error, path)


def _line(error: BaseException, path: str) -> int:
    """The line that the compiler was looking at; its message does not always say so."""
    own = [
        int(line)
        for file, line in _LOCATION.findall(str(error))
        if os.path.basename(file) == os.path.basename(path)
    ]
    if own:
        return own[-1]
    line, trace = 0, error.__traceback__
    while trace is not None:
        for value in trace.tb_frame.f_locals.values():
            place: Any = getattr(value, "loc", None)
            if getattr(place, "filename", "") == path and isinstance(place.line, int):
                line = place.line
        trace = trace.tb_next
    return line
