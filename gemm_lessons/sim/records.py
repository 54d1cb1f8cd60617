"""Elements of structured arrays, and the types that kernels name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gemm_lessons.sim.arrays import KernelArray


class Record:
    """An element of a structured array: its fields are elements of their own."""

    __slots__ = ("_array", "_index")

    def __init__(self, array: KernelArray, index: tuple[int, ...]) -> None:
        object.__setattr__(self, "_array", array)
        object.__setattr__(self, "_index", index)

    @property
    def dtype(self) -> np.dtype:
        """Type of the record."""
        return self._array.dtype

    def __getattr__(self, name: str) -> Any:
        if name not in (self._array.dtype.names or ()):
            raise AttributeError(f"the record has no field {name!r}")
        return self._field(name).get(self._index)

    def __setattr__(self, name: str, value: Any) -> None:
        self._field(name).set(self._index, value)

    def __getitem__(self, name: Any) -> Any:
        return self.__getattr__(name if isinstance(name, str) else self._name(name))

    def __setitem__(self, name: Any, value: Any) -> None:
        self.__setattr__(name if isinstance(name, str) else self._name(name), value)

    def _name(self, number: int) -> str:
        return (self._array.dtype.names or ())[number]

    def _field(self, name: str) -> KernelArray:
        return self._array.part(self._array.raw[name])


def dtype_of(dtype: Any) -> np.dtype:
    """A NumPy dtype from what kernels write: a Numba type, a NumPy type or dtype."""
    try:
        return np.dtype(dtype)
    except TypeError:
        return np.dtype(_numba_dtype(dtype))


def _numba_dtype(dtype: Any) -> Any:
    try:
        from numba.cuda.np.numpy_support import as_dtype
    except ImportError:  # plain numba
        from numba.np.numpy_support import as_dtype
    return as_dtype(dtype)
