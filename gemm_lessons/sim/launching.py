"""A launch, from the student's arguments to the report."""

from __future__ import annotations

import functools
import inspect
import threading
import types
from typing import Any

import numpy as np

from gemm_lessons.sim import cudaapi, report
from gemm_lessons.sim.engine import Engine
from gemm_lessons.sim.records import Record
from gemm_lessons.sim.report import Finding, Index3, LaunchError, error_from
from gemm_lessons.sim.semantics import Shadows, value_of
from gemm_lessons.sim.settings import Settings, settings

_GRID_LIMITS = (2**31 - 1, 65535, 65535)
_BLOCK_LIMITS = (1024, 1024, 64)


#: Launches from several Python threads take turns.
_one_at_a_time = threading.RLock()


def dimensions(grid: Any, block: Any) -> tuple[Index3, Index3]:
    """A grid and a block as three sizes each.

    Raises:
        ValueError: There are more than three sizes.
        TypeError: Something is not an integer.
    """
    from numba.cuda.errors import normalize_kernel_dimensions

    sizes = normalize_kernel_dimensions(grid, block)
    (gx, gy, gz), (bx, by, bz) = (tuple(int(n) for n in each) for each in sizes)
    return (gx, gy, gz), (bx, by, bz)


def launch(
    kernel: Any,
    grid: Any,
    block: Any,
    args: tuple[Any, ...],
    *,
    shared_bytes: int = 0,
    cluster: int = 1,
) -> report.Report:
    """Run a kernel in the simulator.

    Args:
        kernel: A ``@cuda.jit`` function.
        grid: Number of blocks, as in ``kernel[grid, block]``.
        block: Number of threads per block.
        args: Arguments of the kernel; host arrays are copied there and back.
        shared_bytes: Dynamic shared memory per block.
        cluster: Consecutive blocks that form a cluster and see each other's shared memory.

    Returns:
        The report.

    Raises:
        SimulatorError: Something is wrong with the kernel; the class says what.
    """
    config = settings()
    grid, block = dimensions(grid, block)
    name = kernel.py_func.__name__
    _check(name, grid, block, shared_bytes, cluster, config)
    engine = Engine(name, grid, block, shared_bytes, config, cluster)
    engine.debug = bool(getattr(kernel, "_debug", False))
    write_back: list[Any] = []
    wrapped = _arguments(engine, kernel, args, write_back)
    shadows = Shadows(_device_function, functools.partial(_constant, engine))
    engine.shadows = shadows
    try:
        with _one_at_a_time:
            engine.run(shadows.shadow(kernel.py_func), wrapped)
    finally:
        report.remember(engine.report)
        for copy_back in write_back:
            copy_back()
    if engine.report.findings:
        raise error_from(engine.report.findings) from None
    return engine.report


def _check(name: str, grid: Index3, block: Index3, shared_bytes: int, cluster: int, config: Settings) -> None:
    threads = block[0] * block[1] * block[2]
    problem = ""
    if min(grid) < 1:
        problem = (
            f"a grid of {grid} has no blocks. Do not launch when there is nothing to do (an expert "
            "without tokens)"
        )
    elif min(block) < 1:
        problem = f"a block of {block} has no threads"
    elif threads > Settings.MAX_THREADS:
        problem = f"{threads} threads per block; a block can have {Settings.MAX_THREADS}"
    elif any(size > limit for size, limit in zip(block, _BLOCK_LIMITS, strict=True)):
        problem = f"a block of {block}; its axes are limited to {_BLOCK_LIMITS}"
    elif any(size > limit for size, limit in zip(grid, _GRID_LIMITS, strict=True)):
        problem = f"a grid of {grid}; its axes are limited to {_GRID_LIMITS}"
    elif shared_bytes > config.shared_bytes:
        problem = f"{shared_bytes} bytes of dynamic shared memory; a block can have {config.shared_bytes}"
    elif shared_bytes < 0:
        problem = f"{shared_bytes} bytes of dynamic shared memory"
    elif cluster < 1 or grid[0] % cluster:
        problem = f"a grid of {grid} cannot be cut into clusters of {cluster} blocks"
    if problem:
        finding = Finding("launch", f"kernel '{name}' cannot be launched: {problem}.", name)
        raise LaunchError(finding.message, [finding])


def _arguments(engine: Engine, kernel: Any, args: tuple[Any, ...], write_back: list[Any]) -> tuple[Any, ...]:
    try:
        names = list(inspect.signature(kernel.py_func).bind(*args).arguments)
    except TypeError as error:
        raise TypeError(f"kernel '{kernel.py_func.__name__}': {error}") from None
    names += [""] * (len(args) - len(names))
    return tuple(
        _argument(engine, _extended(kernel, arg, write_back), name, write_back)
        for arg, name in zip(args, names, strict=True)
    )


def _extended(kernel: Any, arg: Any, write_back: list[Any]) -> Any:
    """An argument after the kernel's registered extensions."""
    value: tuple[Any, Any] = (None, arg)
    for extension in kernel.extensions:
        value = extension.prepare_args(*value, stream=0, retr=write_back)
    return value[1]


def _argument(engine: Engine, arg: Any, name: str, write_back: list[Any]) -> Any:
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray, auto_device

    if isinstance(arg, tuple):
        parts = [_argument(engine, each, name, write_back) for each in arg]
        return type(arg)(*parts) if hasattr(arg, "_fields") else tuple(parts)
    if hasattr(arg, "to_device") and hasattr(arg, "value"):  # cuda.In, Out, InOut
        arg = arg.to_device(write_back)
    elif isinstance(arg, np.ndarray) and arg.ndim > 0:
        host = arg
        arg, _ = auto_device(host)
        device = arg
        write_back.append(lambda: device.copy_to_host(host))
    if isinstance(arg, FakeCUDAArray):
        arg = arg._ary
    if isinstance(arg, np.void) and arg.dtype.names:
        record, copy = arg, np.array([arg])
        write_back.append(lambda: _copy_record(copy[0], record))
        return Record(cudaapi.wrap_global(engine, copy, name), (0,))
    if isinstance(arg, np.ndarray):
        return cudaapi.wrap_global(engine, arg, name)
    return value_of(arg)


def _copy_record(source: Any, target: Any) -> None:
    for name in source.dtype.names:
        target[name] = source[name]


def _constant(engine: Engine, value: Any) -> Any:
    """A global or captured value as the kernel sees it."""
    return cudaapi.wrap_global(engine, value) if isinstance(value, np.ndarray) else value_of(value)


def _device_function(value: Any) -> types.FunctionType | None:
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    return value.py_func if isinstance(value, FakeCUDAKernel) and value._device else None
