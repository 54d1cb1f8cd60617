"""The least an instruction needs under Numba's own simulator: thread scope, no checks, no order."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from gemm_lessons.sim.registry import Completion, Context, InstructionError, Reason


def _raw(array: Any) -> np.ndarray:
    """The NumPy array under Numba's two layers of wrapping."""
    for layer in ("_item", "_ary"):
        array = array.__dict__.get(layer, array) if hasattr(array, "__dict__") else array
    return array


class _Done:
    done = True


class _StockContext(Context):
    """Addresses are the host's own; nothing is checked and nothing is asynchronous."""

    def __init__(self) -> None:
        current: Any = threading.current_thread()
        x, y, z = current.threadIdx
        block_dim = tuple(current._manager._block_dim)
        self.thread_idx = (x, y, z)
        self.block_idx = tuple(current.blockIdx)
        self.block_dim = block_dim
        self.grid_dim = tuple(current._manager._grid_dim)
        self.thread = x + block_dim[0] * (y + block_dim[1] * z)
        self.lane, self.warp = self.thread % 32, self.thread // 32
        bx, by, bz = self.block_idx
        self.block = bx + self.grid_dim[0] * (by + self.grid_dim[1] * bz)
        self.lanes = (self,)

    def address(self, array: Any, index: Any = 0) -> int:
        raw = _raw(array)
        steps = index if isinstance(index, tuple) else (index,)
        return raw.ctypes.data + sum(
            int(i) * s for i, s in zip(steps, raw.strides[-len(steps) :], strict=True)
        )

    def element(self, address: int) -> tuple[Any, int]:
        raise InstructionError("Numba's own simulator has no table of arrays")

    def load(self, address: int, dtype: Any, count: int = 1, *, align: int | None = None) -> Any:
        size = np.dtype(dtype).itemsize * count
        return np.frombuffer(ctypes.string_at(address, size), dtype=dtype).copy()

    def store(self, address: int, values: Any, dtype: Any = None, *, align: int | None = None) -> None:
        data = np.ascontiguousarray(values, dtype=dtype).tobytes()
        ctypes.memmove(address, data, len(data))

    def atomic(self, address: int, dtype: Any, update: Callable[[Any], Any]) -> Any:
        old = self.load(address, dtype)[0]
        self.store(address, update(old), dtype)
        return old

    def read(self, array: Any, index: Any = None) -> Any:
        return _raw(array).copy() if index is None else _raw(array)[index]

    def write(self, array: Any, values: Any, index: Any = None) -> None:
        _raw(array)[... if index is None else index] = values

    def state(self, key: Hashable, factory: Callable[[], Any], space: str = "block") -> Any:
        # why: id() of the thread or manager would be reused; an attribute dies with its owner.
        owner: Any = threading.current_thread()
        if space != "thread":
            owner = owner._manager
        table = owner.__dict__.setdefault("_sim_states", {})
        if key not in table:
            table[key] = factory()
        return table[key]

    def release(self, key: Hashable, *, own: bool = False) -> None:
        pass

    def acquire(self, key: Hashable) -> None:
        pass

    def fence(self, scope: str = "device") -> None:
        pass

    def wait_until(self, predicate: Callable[[], bool], reason: Reason) -> None:
        while not predicate():
            threading.Event().wait(0.001)

    def later(
        self, action: Callable[[Context], None], agent: str = "async", *, owed: bool = False
    ) -> Completion:
        action(self)
        return _Done()

    def join(self, completion: Completion, reason: Reason = "asynchronous work") -> None:
        pass


def context() -> Context:
    """The current stock thread, as instructions see it."""
    return _StockContext()
