"""``numba.cuda`` as a kernel sees it, for the thread that runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.sim import collectives, warps
from gemm_lessons.sim import engine as engines
from gemm_lessons.sim.arrays import KernelArray, PlainArray, make_array
from gemm_lessons.sim.atomics import Atomic
from gemm_lessons.sim.dimensions import block_dim, block_idx, grid_dim, thread_idx
from gemm_lessons.sim.engine import Engine
from gemm_lessons.sim.grids import this_grid
from gemm_lessons.sim.memory import POISON, Root
from gemm_lessons.sim.records import dtype_of
from gemm_lessons.sim.settings import Settings
from gemm_lessons.sim.sites import assigned_name


def _engine() -> Engine:
    if engines.current is None:
        raise RuntimeError("this function works inside kernels only")
    return engines.current


# --- where am I -----------------------------------------------------------------------------------


def grid(ndim: int) -> Any:
    """Index of the thread in the grid, on 1 to 3 axes."""
    x = block_idx.x * block_dim.x + thread_idx.x
    if ndim == 1:
        return x
    y = block_idx.y * block_dim.y + thread_idx.y
    if ndim == 2:
        return x, y
    if ndim == 3:
        return x, y, block_idx.z * block_dim.z + thread_idx.z
    raise ValueError(f"cuda.grid takes 1, 2 or 3, not {ndim!r}")


def gridsize(ndim: int) -> Any:
    """Number of threads in the grid, on 1 to 3 axes."""
    x = grid_dim.x * block_dim.x
    if ndim == 1:
        return x
    y = grid_dim.y * block_dim.y
    if ndim == 2:
        return x, y
    if ndim == 3:
        return x, y, grid_dim.z * block_dim.z
    raise ValueError(f"cuda.gridsize takes 1, 2 or 3, not {ndim!r}")


def lane_id() -> int:
    """Lane of the thread in its warp."""
    return _engine().cur.linear % 32


# --- barriers and fences ------------------------------------------------------------------------


def syncthreads() -> None:
    """Wait for all threads of the block."""
    collectives.barrier(_engine())


def syncthreads_count(predicate: Any) -> int:
    """The same; in how many threads the predicate holds."""
    return sum(collectives.barrier(_engine(), bool(predicate)))


def syncthreads_and(predicate: Any) -> int:
    """The same; 1 if the predicate holds in all threads."""
    return int(all(collectives.barrier(_engine(), bool(predicate))))


def syncthreads_or(predicate: Any) -> int:
    """The same; 1 if the predicate holds in some thread."""
    return int(any(collectives.barrier(_engine(), bool(predicate))))


def threadfence() -> None:
    """What this thread did can be published to the device."""
    _engine().fence(_engine().cur)


def threadfence_block() -> None:
    """What this thread did can be published to its block."""
    _engine().fence(_engine().cur, block_only=True)


def nanosleep(ns: Any) -> None:
    """Let others run."""
    _engine().let_others_run()


# --- arrays ---------------------------------------------------------------------------------------


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in shape) if isinstance(shape, tuple | list) else (int(shape),)


def _wrap(engine: Engine, raw: np.ndarray, root: Root, offset: int = 0) -> Any:
    if engine.checked:
        return make_array(engine, raw, root, offset)
    if engine.switching or raw.dtype.kind in "iub" or raw.dtype.names:
        return make_array(engine, raw, root, offset, PlainArray)
    return raw


def _check_alignment(alignment: Any) -> int:
    if alignment is None:
        return 1
    if not isinstance(alignment, int | np.integer) or isinstance(alignment, bool):
        raise TypeError(f"alignment must be an integer, not {alignment!r}")
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment must be a power of two, not {alignment}")
    return int(alignment)


class Shared:
    """``cuda.shared``."""

    @staticmethod
    def array(shape: Any, dtype: Any, alignment: Any = None) -> Any:
        """An array of the block; of shape 0: the dynamic part, which all such calls share."""
        engine = _engine()
        memory = engine.cur.block.shared
        kind, extents = dtype_of(dtype), _shape(shape)
        align = _check_alignment(alignment)
        if extents == (0,):
            root = memory.dynamic
            size = root.size // kind.itemsize * kind.itemsize
            if root.data is None:
                raise RuntimeError("the block has ended")
            return _wrap(engine, root.data[:size].view(kind), root)
        spot = engine.spot()
        key = id(spot[0]), spot[1]
        if key not in memory.layout.arrays:
            memory.place(key, extents, kind, align, assigned_name(*spot))
            _check_size(engine, memory.layout.static, memory.used)
        root, raw = memory.array(key)
        return _wrap(engine, raw, root)


def _check_size(engine: Engine, static: int, used: int) -> None:
    limit = Settings.STATIC_SHARED_BYTES
    if static > limit:
        message = (
            f"static shared arrays take {static} bytes; the limit is {limit}. Use dynamic shared "
            "memory: cuda.shared.array(0, dtype) and the fourth launch argument."
        )
    elif used > engine.settings.shared_bytes:
        has = engine.settings.shared_bytes
        message = f"a block uses {used} bytes of shared memory; the device has {has}."
    else:
        return
    place = engine.place()
    engine.find("launch", f"kernel '{engine.report.kernel}', {place}: {message}", place, engine.cur.actor)
    engine.give_up()


class Local:
    """``cuda.local``."""

    @staticmethod
    def array(shape: Any, dtype: Any, alignment: Any = None) -> Any:
        """An array of the thread, with nothing in it yet."""
        engine = _engine()
        kind, extents = dtype_of(dtype), _shape(shape)
        _check_alignment(alignment)
        size = kind.itemsize * int(np.prod(extents))
        data = np.full(size, POISON, np.uint8)
        raw = data.view(kind).reshape(extents)
        if not engine.checked:
            return _wrap(engine, raw, Root("local", 0, 0, size, data))
        return make_array(engine, raw, Root("local", 0, 0, size, data, bytearray(size)), 0)


class Const:
    """``cuda.const``."""

    @staticmethod
    def array_like(array: Any) -> Any:
        """A constant array; constants are frozen when a kernel is compiled."""
        return array if isinstance(array, KernelArray) else wrap_global(_engine(), array)


def wrap_global(engine: Engine, raw: np.ndarray, name: str = "") -> Any:
    """An array in global memory as the kernel sees it."""
    if raw.ndim == 0:
        return raw
    root, offset = engine.global_root(raw)
    if not root.name:
        root.name = name
        if offset == 0:
            root.describe(raw)
    return _wrap(engine, raw, root, offset)


# --- caching hints -----------------------------------------------------------------------------


def _cached_load(array: Any, index: Any) -> Any:
    """A load; the hint changes nothing here."""
    return array[index]


def _cached_store(array: Any, index: Any, value: Any) -> None:
    """A store; the hint changes nothing here."""
    array[index] = value


# --- integers ------------------------------------------------------------------------------------


def _bits(value: Any) -> tuple[int, int]:
    """An integer as an unsigned number, and its width: 32 bits if it fits there."""
    number = int(value)
    narrow = -(1 << 31) <= number < 1 << 32 and not isinstance(value, np.uint64)
    width = 32 if narrow else 64
    return number & ((1 << width) - 1), width


def popc(value: Any) -> int:
    """Number of bits that are 1."""
    return _bits(value)[0].bit_count()


def brev(value: Any) -> int:
    """The bits in reverse order."""
    number, width = _bits(value)
    return int(f"{number:0{width}b}"[::-1], 2)


def clz(value: Any) -> int:
    """Number of zeros before the first 1."""
    number, width = _bits(value)
    return width - number.bit_length()


def ffs(value: Any) -> int:
    """Position of the last 1, from 1; 0 if there is none."""
    number, _ = _bits(value)
    return (number & -number).bit_length()


def selp(condition: Any, yes: Any, no: Any) -> Any:
    """``yes if condition else no``."""
    return yes if condition else no


def fma(a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once (float64 throughout; NumPy cannot do it for float64)."""
    if all(isinstance(v, np.float32) for v in (a, b, c)):
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    return a * b + c


def cbrt(value: Any) -> Any:
    """Cube root."""
    return np.cbrt(value)


class CooperativeGroups:
    """``cuda.cg``."""

    this_grid = staticmethod(this_grid)


#: What is set on the module ``numba.cuda``.
NAMES: dict[str, Any] = {
    "threadIdx": thread_idx,
    "blockIdx": block_idx,
    "blockDim": block_dim,
    "gridDim": grid_dim,
    "warpsize": 32,
    "grid": grid,
    "gridsize": gridsize,
    "syncthreads": syncthreads,
    "syncthreads_count": syncthreads_count,
    "syncthreads_and": syncthreads_and,
    "syncthreads_or": syncthreads_or,
    "threadfence": threadfence,
    "threadfence_block": threadfence_block,
    "threadfence_system": threadfence,
    "nanosleep": nanosleep,
    "shared": Shared,
    "local": Local,
    "const": Const,
    "atomic": Atomic,
    "cg": CooperativeGroups,
    "popc": popc,
    "brev": brev,
    "clz": clz,
    "ffs": ffs,
    "selp": selp,
    "fma": fma,
    "cbrt": cbrt,
    **{name: getattr(warps, name) for name in dir(warps) if name.endswith("_sync")},
    "syncwarp": warps.syncwarp,
    "activemask": warps.activemask,
    "lanemask_lt": warps.lanemask_lt,
    **dict.fromkeys(("ldca", "ldcg", "ldcs", "ldlu"), _cached_load),
    "ldcv": Atomic.read,
    **dict.fromkeys(("stcg", "stcs", "stwb", "stwt"), _cached_store),
}
