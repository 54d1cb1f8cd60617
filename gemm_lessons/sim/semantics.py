"""Numba's arithmetic instead of NumPy's, without touching the student's code.

Numba computes with int64 and float64 wherever a literal or an integer takes part; NumPy 2 lets a
Python literal follow the array's type. So a kernel runs as a *shadow*: the same bytecode, in which
float constants are float64 objects and large integer constants int64 objects, with the global
names frozen (as Numba freezes them) and ``math``, ``np.int32(...)``, ``float(...)`` and their like
replaced by functions that return what Numba's would.

Known differences, all in the last bit or in rare code: a float32 times a *small or computed*
integer stays float32 here (float64 in Numba; the store narrows both); a variable that is float32
on one path and float64 on another keeps the type of the path; ``uint32 + uint32`` is int64 here
(uint64 in Numba).
"""

from __future__ import annotations

import builtins
import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np

#: Integer constants from here on become int64 objects, which wrap around as on the GPU: hash and
#: random-number constants are large, strides and loop bounds are small and stay fast.
LARGE = 1 << 16
_MASK64 = (1 << 64) - 1
_ZERO = np.int64(0)


def wrap_integer(value: Any, dtype: np.dtype) -> int:
    """An integer of any size as the given integer type stores it."""
    bits = 8 * dtype.itemsize
    number = int(value) & ((1 << bits) - 1)
    if dtype.kind == "i" and number >> (bits - 1):
        number -= 1 << bits
    return number


def to_int64(value: Any) -> np.int64:
    """An integer as an int64, wrapped around."""
    number = int(value) & _MASK64
    # why: Python int + np.int64 costs a tenth of calling np.int64.
    return (number - (1 << 64) if number >> 63 else number) + _ZERO


def cast_integer(value: Any, dtype: np.dtype) -> Any:
    """``int32(value)`` and its like: wraps around, and gives what arithmetic starts from."""
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        value = 0
    number = wrap_integer(value, dtype)
    if dtype.kind == "i":
        return number + _ZERO
    return np.uint64(number) if dtype.itemsize == 8 else number


def reader(dtype: np.dtype) -> Callable[[Any], Any] | None:
    """What makes of an array's element the value that arithmetic starts from; None: nothing.

    A signed integer becomes an int64, a short unsigned one a Python integer, a bool a Python bool.
    """
    if dtype.kind == "b":
        return bool
    if dtype.kind == "i" and dtype.itemsize < 8:
        return _ZERO.__add__
    if dtype.kind == "u" and dtype.itemsize < 8:
        # why: NumPy has no shift of a uint64 by an int64, which random number generators use.
        return int
    return None


def value_of(item: Any) -> Any:
    """A kernel argument, frozen constant or element with the type that Numba would give it."""
    kind = type(item)
    if kind is float:
        return np.float64(item)
    if kind is int:
        if -LARGE < item < LARGE:
            return item
        return to_int64(item) if -(1 << 63) <= item < 1 << 63 else np.uint64(item & _MASK64)
    if kind is tuple:
        return tuple(value_of(each) for each in item)
    if isinstance(item, np.integer) and item.dtype.itemsize < 8:
        return int(item)
    return item


def _cast_class(scalar: type) -> Any:
    """A class that casts as Numba does when called, and is the scalar's dtype otherwise."""
    dtype = np.dtype(scalar)

    class Cast(scalar):
        def __new__(cls, value: Any = 0) -> Any:
            return cast_integer(value, dtype)

    Cast.__name__ = Cast.__qualname__ = scalar.__name__
    return Cast


class _Float(float):
    """``float(x)``: float64, but a float32 stays one, as in Numba."""

    def __new__(cls, value: Any = 0.0) -> Any:
        return value if isinstance(value, np.floating) else np.float64(value)


def _round(value: Any, digits: Any = None) -> Any:
    """``round``, as Python does it for a float; NumPy's multiplies and divides."""
    if digits is None and isinstance(value, float | np.floating) and not math.isfinite(value):
        return 0  # as the cast to an integer that a GPU makes of it; Python raises
    if digits is None or not isinstance(value, np.floating):
        return round(value) if digits is None else round(value, int(digits))
    return type(value)(round(float(value), int(digits)))


def _math_function(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        try:
            result = function(*args)
        except ValueError:
            result = math.nan
        except OverflowError:
            result = math.inf
        if type(result) is not float:
            return result
        if all(type(a) is np.float32 for a in args):
            return np.float32(result)
        if all(type(a) is np.float16 for a in args):
            return np.float16(result)
        return np.float64(result)

    call.__name__ = function.__name__
    return call


def _shadow_module(module: types.ModuleType, changes: dict[str, Any]) -> types.ModuleType:
    shadow = types.ModuleType(module.__name__, module.__doc__)
    shadow.__dict__.update(module.__dict__)
    shadow.__dict__.update(changes)
    return shadow


_INTEGERS = {
    name: _cast_class(getattr(np, name))
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}
_NUMPY = _shadow_module(
    np,
    {
        **_INTEGERS,
        **{
            alias: _INTEGERS[np.dtype(getattr(np, alias)).name]
            for alias in ("intp", "uintp", "intc", "uintc", "byte", "ubyte", "short", "ushort")
        },
        **{name: np.float64(getattr(np, name)) for name in ("pi", "e", "inf", "nan")},
    },
)
_MATH = _shadow_module(
    math,
    {
        name: np.float64(value) if isinstance(value, float) else _math_function(value)
        for name, value in vars(math).items()
        if isinstance(value, float) or callable(value)
    },
)
_BUILTINS = {"float": _Float, "round": _round}
_REPLACED: dict[int, Any] = {
    id(np): _NUMPY,
    id(math): _MATH,
    id(builtins.float): _Float,
    **{id(getattr(np, name)): cast for name, cast in _INTEGERS.items()},
    **{id(value): getattr(_MATH, name) for name, value in vars(math).items() if callable(value)},
}


def _constants(code: types.CodeType) -> types.CodeType:
    constants = tuple(_constants(c) if isinstance(c, types.CodeType) else value_of(c) for c in code.co_consts)
    if all(new is old for new, old in zip(constants, code.co_consts, strict=True)):
        return code
    return code.replace(co_consts=constants)


def _names(code: types.CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*(_names(c) for c in inner))


class Shadows:
    """The shadows of one launch: kernel and device functions, each made once."""

    def __init__(
        self,
        device_function: Callable[[Any], types.FunctionType | None],
        constant: Callable[[Any], Any] = value_of,
    ) -> None:
        """Make an empty table.

        Args:
            device_function: Gives the Python function of a jitted device function, else None.
            constant: Gives what a kernel sees of any other global or captured value.
        """
        self._device_function = device_function
        self._constant = constant
        self._made: dict[types.FunctionType, types.FunctionType] = {}

    def shadow(self, function: types.FunctionType) -> types.FunctionType:
        """The function as a kernel runs it."""
        known = self._made.get(function)
        if known is not None:
            return known
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        names: dict[str, Any] = {}
        made = types.FunctionType(
            _constants(function.__code__),
            names,
            function.__name__,
            tuple(value_of(d) for d in function.__defaults__ or ()) or None,
            cells,
        )
        made.__kwdefaults__ = function.__kwdefaults__
        # why: registered before its names are looked through, since functions call themselves.
        self._made[function] = made
        names.update(self._frozen_globals(function))
        for cell, original in zip(cells, function.__closure__ or (), strict=True):
            try:
                cell.cell_contents = self._frozen(original.cell_contents)
            except ValueError:  # not assigned yet
                continue
        return made

    def _frozen_globals(self, function: types.FunctionType) -> dict[str, Any]:
        # why: a whole copy, not only the names in use, so that a debugger finds the others.
        frozen = dict(function.__globals__)
        for name in _names(function.__code__):
            if name in frozen:
                frozen[name] = self._frozen(frozen[name])
            elif name in _BUILTINS:
                frozen[name] = _BUILTINS[name]
        return frozen

    def _frozen(self, value: Any) -> Any:
        replaced = _REPLACED.get(id(value))
        if replaced is not None:
            return replaced
        function = self._device_function(value)
        return self._constant(value) if function is None else self.shadow(function)
