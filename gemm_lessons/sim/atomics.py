"""``cuda.atomic``: one indivisible step each, in the type of the array, at which others may run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gemm_lessons.sim import engine as engines
from gemm_lessons.sim.arrays import KernelArray
from gemm_lessons.sim.memory import Root
from gemm_lessons.sim.recorder import ATOMIC
from gemm_lessons.sim.registry import InstructionError
from gemm_lessons.sim.semantics import reader, wrap_integer
from gemm_lessons.sim.sites import call_path, kernel_frame

if TYPE_CHECKING:
    from gemm_lessons.sim.engine import Engine


def _as(dtype: np.dtype, value: Any) -> Any:
    """A value in the type of the array, as the hardware's operand."""
    if dtype.kind in "iu":
        return wrap_integer(value, dtype)
    return dtype.type(value)


def _update(array: Any, index: Any, update: Callable[[Any], Any], ticket: bool = False) -> Any:
    engine = engines.current
    if engine is None:
        raise RuntimeError("cuda.atomic works inside kernels only")
    waited = False
    if ticket and not (isinstance(array, KernelArray) and array.root.space == "shared"):
        waited = engine.catch_up(engine.spot())
    if isinstance(array, KernelArray):
        plain = array.checked(index)
        if plain is None:
            return array.poison()
        raw, at = array.raw, array.offset_of(plain)
        root: Root | None = array.root
        if len(plain) != raw.ndim:
            raise InstructionError("an atomic needs the index of one element")
        array.touch(at, ATOMIC)
        if array.root.space == "local":
            raise InstructionError("an atomic on a local array: no other thread can see it")
        _check_written(engine, array, plain, at)
        key: Any = array.root.log_base + array.offset + at
        if engine.checked:
            engine.observed(key)
    else:
        raw, root, plain, key = array, None, index, (id(array), str(index))
    old = raw[plain]
    new = update(int(old) if raw.dtype.kind in "iu" else old)
    changed = bool(new != old)
    if changed:
        raw[plain] = new
    convert = reader(raw.dtype)
    result = old if convert is None else convert(old)
    thread = engine.cur
    if ticket and changed and not _is_shared(root):
        now = engine.now(thread.block)
        engine.tickets.draw(engine.spot(), thread.block, thread.linear, now, int(old))
    _let_others_run(engine, (key, old), changed, _is_shared(root), waited)
    return result


def _is_shared(root: Root | None) -> bool:
    return root is not None and root.space == "shared"


def _check_written(engine: Engine, array: KernelArray, index: Any, at: int) -> None:
    init = array.root.init
    if init is not None:
        start = array.offset + at
        if not init[start]:
            engine.unwritten(array, index, array.root.log_base + start)
        init[start : start + array.itemsize] = b"\1" * array.itemsize


def _let_others_run(engine: Engine, key: Any, changed: bool, shared: bool, waited: bool) -> None:
    """After an atomic another block may run; after a failing one in a loop, another must."""
    thread = engine.cur
    if not shared:
        engine.report.atomics += 1
    if changed:
        thread.spin, thread.spinning = None, False
        if not shared and not waited:
            engine.let_others_run()
        return
    frame = kernel_frame(2)
    # why: a loop that repeats an atomic without effect, and whose variables do not change, can
    # only be ended by others. That is exact, where a count of tries would be a guess.
    here = (
        key,
        frame.f_lasti,
        tuple(v if isinstance(v, int | float) else id(v) for v in frame.f_locals.values()),
    )
    thread.spinning = thread.spin == here
    thread.spin = here
    if thread.spinning:
        thread.path = call_path(frame)
        thread.waits = "repeats the atomic at {}"
    if thread.spinning or not shared:
        engine.let_others_run(spinning=thread.spinning)
    thread.waits = ""


class Atomic:
    """The functions of ``cuda.atomic``; each returns the old value."""

    @staticmethod
    def add(array: Any, index: Any, value: Any) -> Any:
        """``array[index] += value``."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: _as(array.dtype, old + value), bool(value))

    @staticmethod
    def read(array: Any, index: Any) -> Any:
        """``array[index]`` as others left it: a volatile load, which a loop may wait with."""
        return _update(array, index, lambda old: old)

    @staticmethod
    def sub(array: Any, index: Any, value: Any) -> Any:
        """``array[index] -= value``."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: _as(array.dtype, old - value))

    @staticmethod
    def and_(array: Any, index: Any, value: Any) -> Any:
        """``array[index] &= value``."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: old & value)

    @staticmethod
    def or_(array: Any, index: Any, value: Any) -> Any:
        """``array[index] |= value``."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: old | value)

    @staticmethod
    def xor(array: Any, index: Any, value: Any) -> Any:
        """``array[index] ^= value``."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: old ^ value)

    @staticmethod
    def inc(array: Any, index: Any, value: Any) -> Any:
        """Add one, or go back to 0 from ``value`` (or more)."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: 0 if old >= value else old + 1, ticket=True)

    @staticmethod
    def dec(array: Any, index: Any, value: Any) -> Any:
        """Subtract one, or go back to ``value`` from 0 (or from more than ``value``)."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: value if old == 0 or old > value else old - 1)

    @staticmethod
    def exch(array: Any, index: Any, value: Any) -> Any:
        """``array[index] = value``."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: value)

    @staticmethod
    def max(array: Any, index: Any, value: Any) -> Any:
        """The larger one; a NaN that is there stays, and one that is given is ignored."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: value if value > old else old)

    @staticmethod
    def min(array: Any, index: Any, value: Any) -> Any:
        """The smaller one; a NaN that is there stays, and one that is given is ignored."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: value if value < old else old)

    @staticmethod
    def nanmax(array: Any, index: Any, value: Any) -> Any:
        """The larger one that is a number."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: value if old != old or value > old else old)

    @staticmethod
    def nanmin(array: Any, index: Any, value: Any) -> Any:
        """The smaller one that is a number."""
        value = _as(array.dtype, value)
        return _update(array, index, lambda old: value if old != old or value < old else old)

    @staticmethod
    def cas(array: Any, index: Any, expected: Any, value: Any) -> Any:
        """``array[index] = value`` if it is ``expected``."""
        value, expected = _as(array.dtype, value), _as(array.dtype, expected)
        return _update(array, index, lambda old: value if old == expected else old)

    @staticmethod
    def compare_and_swap(array: Any, expected: Any, value: Any) -> Any:
        """:meth:`cas` of the first element."""
        return Atomic.cas(array, (0,) * array.ndim, expected, value)
