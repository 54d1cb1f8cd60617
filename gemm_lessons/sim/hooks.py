"""Puts the engine under Numba's simulator: same API, nothing to change in kernels."""

from __future__ import annotations

import copy
import functools
import importlib
import math
import sys
import threading
import types
import warnings
from typing import Any

from gemm_lessons.sim import cudaapi
from gemm_lessons.sim import engine as engines
from gemm_lessons.sim.launching import dimensions, launch
from gemm_lessons.sim.memory import GLOBAL
from gemm_lessons.sim.registry import InstructionError
from gemm_lessons.sim.report import Finding, MisuseError
from gemm_lessons.sim.semantics import Shadows, cast_integer
from gemm_lessons.sim.settings import Settings, settings

_installed = False


def install() -> bool:
    """Replace the executor of Numba's CUDA simulator.

    With a GPU (``NUMBA_ENABLE_CUDASIM`` not set when Numba was imported) and with
    ``GEMM_LESSONS_SIM=stock`` nothing happens. Calling it again does nothing.

    Returns:
        Whether kernels run in the checked simulator from here on.
    """
    global _installed
    from numba import cuda

    if settings().mode == "stock" or not hasattr(cuda, "FakeCUDAKernel"):
        return False
    if not _installed:
        _patch_kernels(cuda)
        _patch_device(cuda)
        _patch_casts()
        _installed = True
    return True


# --- kernels ------------------------------------------------------------------------------------


def _call(self: Any, *args: Any) -> Any:
    engine = engines.current
    if engine is not None and engine.owner == threading.get_ident():
        if self.grid_dim is not None:
            raise InstructionError("a kernel cannot launch a kernel: return, and launch from the host.")
        return engine_shadows(engine).shadow(self.py_func)(*args)
    if self._device:
        message = (
            f"'{self.py_func.__name__}' is a device function: only kernels and other device "
            "functions can call it. Call it from a kernel, or test its .py_func on the host."
        )
        raise MisuseError(message, [Finding("misuse", message, self.py_func.__name__)])
    if self.grid_dim is None:
        raise ValueError(
            f"kernel '{self.py_func.__name__}': launch configuration was not specified; write "
            f"{self.py_func.__name__}[blocks, threads](...)"
        )
    launch(self, self.grid_dim, self.block_dim, args, shared_bytes=self.dynshared_size)
    return None


def engine_shadows(engine: Any) -> Shadows:
    """The shadows of a running launch, for device functions that are reached by attribute."""
    if engine.shadows is None:
        raise RuntimeError("no kernel is running")
    shadows: Shadows = engine.shadows
    return shadows


def _configured(self: Any, configuration: Any) -> Any:
    if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
        raise ValueError(
            "a kernel is launched as kernel[blocks, threads, stream, shared_bytes](...); "
            f"got {configuration!r}"
        )
    configured = copy.copy(self)
    configured.grid_dim, configured.block_dim = dimensions(*configuration[:2])
    configured.stream = configuration[2] if len(configuration) > 2 else 0
    configured.dynshared_size = int(configuration[3]) if len(configuration) > 3 else 0
    return configured


def _forall(self: Any, ntasks: int, tpb: int = 0, stream: Any = 0, sharedmem: int = 0) -> Any:
    if ntasks < 0:
        raise ValueError(f"Can't create ForAll with negative task count: {ntasks}")
    threads = tpb or 128
    if ntasks == 0:
        return lambda *args: None
    return self[math.ceil(ntasks / threads), threads, stream, sharedmem]


class _Overload:
    """What cooperative launches ask of a compiled kernel."""

    @staticmethod
    def max_cooperative_grid_blocks(blockdim: Any, dynsmemsize: int = 0) -> int:
        """How many blocks fit on the device at a time."""
        _, block = dimensions(1, blockdim)
        return engines.Engine("", (1, 1, 1), block, dynsmemsize, settings()).capacity


class _Overloads(dict[Any, Any]):
    def __getitem__(self, key: Any) -> Any:
        return _Overload()


def _jit(original: Any) -> Any:
    @functools.wraps(original)
    def jit(func_or_sig: Any = None, *args: Any, **options: Any) -> Any:
        known = {"device", "debug", "fastmath", "link"}
        if not options.get("link"):
            options.pop("link", None)
        if options.get("boundscheck"):
            raise NotImplementedError("bounds checking is not supported for CUDA")
        return original(func_or_sig, *args, **{k: v for k, v in options.items() if k in known})

    return jit


class _CudaModule(types.ModuleType):
    @property
    def laneid(self) -> int:
        """Lane of the current thread."""
        return cudaapi.lane_id()


def _patch_kernels(cuda: Any) -> None:
    kernel: Any = cuda.FakeCUDAKernel
    kernel.__call__ = _call
    kernel.__getitem__ = _configured
    kernel.forall = _forall
    kernel.overloads = property(lambda self: _Overloads())
    simulator: Any = importlib.import_module("numba.cuda.simulator")
    jit = _jit(importlib.import_module("numba.cuda.simulator.api").jit)
    kernelapi = importlib.import_module("numba.cuda.simulator.kernelapi")
    fp16 = kernelapi.FakeCUDAFp16()
    for module in (cuda, simulator):
        for name, value in cudaapi.NAMES.items():
            setattr(module, name, value)
        module.jit = jit
        module.fp16 = fp16
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("numba.cuda.simulator.api"):
            module.jit = jit  # type: ignore[attr-defined]
    cuda.__class__ = _CudaModule


# --- device ------------------------------------------------------------------------------------


def _patch_device(cuda: Any) -> None:
    devices = importlib.import_module("numba.cuda.simulator.cudadrv.devices")
    capability = property(lambda self: settings().compute_capability)
    devices.FakeCUDADevice.compute_capability = capability
    devices.FakeCUDAContext.compute_capability = capability
    attributes = {
        "name": "checked simulator",
        "MULTIPROCESSOR_COUNT": property(lambda self: settings().sms),
        "MAX_SHARED_MEMORY_PER_BLOCK": Settings.STATIC_SHARED_BYTES,
        "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": property(lambda self: settings().shared_bytes),
        "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": property(lambda self: settings().shared_bytes + 1024),
        "MAX_THREADS_PER_BLOCK": Settings.MAX_THREADS,
        "MAX_THREADS_PER_MULTI_PROCESSOR": Settings.THREADS_PER_SM,
        "MAX_BLOCKS_PER_MULTIPROCESSOR": Settings.BLOCKS_PER_SM_LIMIT,
        "MAX_REGISTERS_PER_BLOCK": 65536,
        "MAX_GRID_DIM_X": 2**31 - 1,
        "MAX_GRID_DIM_Y": 65535,
        "MAX_GRID_DIM_Z": 65535,
        "MAX_BLOCK_DIM_X": 1024,
        "MAX_BLOCK_DIM_Y": 1024,
        "MAX_BLOCK_DIM_Z": 64,
        "WARP_SIZE": Settings.WARP,
        "COOPERATIVE_LAUNCH": 1,
    }
    for name, value in attributes.items():
        setattr(devices.FakeCUDADevice, name, value)
    if not hasattr(cuda, "get_current_device"):  # plain numba
        cuda.get_current_device = devices.FakeCUDADevice
    cuda.Event.elapsed_time = _elapsed_time


def _elapsed_time(self: Any, event: Any) -> float:
    """Not a number: the simulator has no time, and makes none up."""
    warnings.warn(
        "the simulator cannot time kernels: elapsed_time() is nan. Count work instead "
        "(gemm_lessons.sim.report), or run on a GPU.",
        stacklevel=2,
    )
    return math.nan


def address_of(array: Any) -> int:
    """Generic address of a device array's first element, as kernels see it.

    Args:
        array: A device array of the simulator, or the NumPy array behind one. The address stays
            for the array's life, so that it can be put in a descriptor on the host.
    """
    return GLOBAL.address(getattr(array, "_ary", array))


# --- casts -------------------------------------------------------------------------------------


def _patch_casts() -> None:
    """``int32(x)`` of Numba's types wraps around in a kernel, and gives what arithmetic needs."""
    import numpy as np

    for name in ("numba.cuda.types", "numba.core.types"):
        try:
            integer: Any = importlib.import_module(name).Integer
        except (ImportError, AttributeError):  # plain numba has them in numba.core only
            continue
        if getattr(integer.cast_python_value, "simulated", False):
            continue

        def cast(self: Any, value: Any, original: Any = integer.cast_python_value) -> Any:
            if engines.current is None:
                return original(self, value)
            return cast_integer(value, np.dtype(self.name))

        cast.simulated = True  # type: ignore[attr-defined]
        integer.cast_python_value = cast
