"""From a bytecode offset to the line and expression that the student wrote."""

from __future__ import annotations

import ast
import dis
import linecache
import sys
from functools import lru_cache
from itertools import islice
from types import CodeType, FrameType

import numpy as np

from gemm_lessons.sim.registry import LIBRARIES
from gemm_lessons.sim.report import Place

#: Bits of a site number in a log entry; one number per bytecode instruction of a launch.
SITE_BITS = 17


_starts: dict[int, tuple[CodeType, list[int]]] = {}


def starts(code: CodeType) -> list[int]:
    """The number of the instruction that each pair of bytes of the bytecode belongs to."""
    known = _starts.get(id(code))
    if known is None or known[0] is not code:
        numbers = [0] * (len(code.co_code) // 2)
        for one in dis.get_instructions(code):
            numbers[one.offset // 2] = one.offset // 2
        for at, number in enumerate(numbers):
            numbers[at] = number or (numbers[at - 1] if at else 0)
        known = _starts[id(code)] = code, numbers
    return known[1]


def instruction_at(frame: FrameType) -> tuple[CodeType, int]:
    """The instruction that a frame executes.

    why: once CPython has specialised an instruction that calls Python code, ``f_lasti`` points at
    its last cache entry and no longer at the instruction itself.
    """
    code = frame.f_code
    return code, 2 * starts(code)[frame.f_lasti // 2]


def place_of(code: CodeType, lasti: int) -> Place:
    """Where a bytecode offset is in the source, with the expression as written."""
    position = next(islice(code.co_positions(), lasti // 2, None), (None,) * 4)
    line, end_line, column, end_column = position
    if line is None:
        return Place(code.co_filename, code.co_firstlineno, "", code.co_name)
    return Place(
        code.co_filename,
        line,
        _text(code.co_filename, line, end_line or line, column, end_column),
        code.co_name,
    )


def _text(file: str, line: int, end_line: int, column: int | None, end_column: int | None) -> str:
    first = linecache.getline(file, line)
    if not first or column is None or end_column is None:
        return first.strip()
    if end_line != line:
        return f"{first.encode()[column:].decode(errors='replace').strip()} ..."
    # why: columns count UTF-8 bytes, not characters.
    return first.encode()[column:end_column].decode(errors="replace").strip()


def frame_place(frame: FrameType) -> Place:
    """Where a frame is."""
    return place_of(*instruction_at(frame))


_own: dict[str, tuple[int, bool]] = {}


def is_kernel_frame(frame: FrameType) -> bool:
    """Whether a frame is the student's, not the simulator's or an instruction library's."""
    name = frame.f_globals.get("__name__", "")
    known = _own.get(name)
    if known is None or known[0] != len(LIBRARIES):
        inside = any(f"{name}.".startswith(f"{package}.") for package in LIBRARIES)
        known = _own[name] = len(LIBRARIES), not inside
    return known[1]


def kernel_frame(depth: int = 1) -> FrameType:
    """The innermost frame of a kernel or device function at or above the caller."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and not is_kernel_frame(frame):
        frame = frame.f_back
    return frame if frame is not None else sys._getframe(depth)


def call_path(frame: FrameType | None) -> tuple[tuple[CodeType, int], ...]:
    """The calls that lead from the kernel to a frame: equal for the same barrier."""
    path = []
    while frame is not None and is_kernel_frame(frame):
        path.append(instruction_at(frame))
        frame = frame.f_back
    return tuple(path)


class Sites:
    """Numbers for the bytecode instructions of a launch."""

    def __init__(self) -> None:
        self._codes: list[CodeType] = []
        self._bases: list[int] = []
        self._by_id: dict[int, int] = {}
        self._next = 0
        self._canonical: list[int] = []

    def base(self, code: CodeType) -> int:
        """Number of the first instruction of a code object.

        Raises:
            OverflowError: The launch executes more bytecode than numbers exist.
        """
        # why: hashing a code object hashes its constants, every time; its id is free, and the
        # list below keeps the object alive, so that no other one gets the same id.
        number = self._by_id.get(id(code))
        if number is None:
            number = self._by_id[id(code)] = self._next
            self._codes.append(code)
            self._bases.append(number)
            self._canonical += [number + start for start in starts(code)]
            self._next = len(self._canonical)
            if self._next >= 1 << SITE_BITS:
                raise OverflowError("the kernel's functions are too long for the checked simulator")
        return number

    @property
    def canonical(self) -> np.ndarray:
        """For each number the number of its instruction: cache entries have numbers, too."""
        return np.array(self._canonical, dtype=np.int64)

    def place(self, site: int) -> Place:
        """Where a site is in the source."""
        index = _last_not_above(self._bases, site)
        return place_of(self._codes[index], 2 * (site - self._bases[index]))


def _last_not_above(sorted_values: list[int], value: int) -> int:
    from bisect import bisect_right

    return bisect_right(sorted_values, value) - 1


def assigned_name(code: CodeType, lasti: int) -> str:
    """The variable that the value of a call is assigned to: ``s_a`` in ``s_a = shared.array()``."""
    position = next(islice(code.co_positions(), lasti // 2, None), (None,) * 4)
    line, column = position[0], position[2]
    if line is None or column is None:
        return ""
    text = linecache.getline(code.co_filename, line)
    try:
        body = ast.parse(text.strip()).body
    except SyntaxError:
        return ""
    column -= len(text) - len(text.lstrip())
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.value.col_offset == column:
                return node.targets[0].id
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            return node.target.id
    return ""


@lru_cache(maxsize=4096)
def array_name(text: str) -> str:
    """The array of an expression: ``s_a`` of ``s_a[row, k]`` or ``cuda.atomic.add(s_a, 0, 1)``."""
    try:
        node: ast.AST = ast.parse(text.split("=")[0].strip() or text, mode="eval").body
    except SyntaxError:
        return ""
    while isinstance(node, ast.Subscript | ast.Call):
        if isinstance(node, ast.Call):
            if not node.args:
                return ""
            node = node.args[0]
        else:
            node = node.value
    return ast.unparse(node)
