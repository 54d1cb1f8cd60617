"""Choose where kernels run, once, before Numba is imported: a GPU, the simulator, or the compiler alone.

Numba decides between hardware and simulator when `numba.cuda` is imported and cannot change its mind.
So the choice is made here, on first use, with nothing but the standard library:

    GEMM_LESSONS_DEVICE=auto     a usable GPU if there is one, else the simulator (the default)
    GEMM_LESSONS_DEVICE=gpu      a GPU, or an error that says what is missing
    GEMM_LESSONS_DEVICE=sim      the simulator, also where there is a GPU
    GEMM_LESSONS_DEVICE=compile  the real compiler and no device: kernels compile but cannot be launched

Every module of this package that imports `numba.cuda` calls `choose()` first.
"""

import ctypes
import functools
import os
import platform
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Kind = Literal["gpu", "sim", "compile"]

OLDEST_COMPUTE_CAPABILITY = (7, 5)
OLDEST_DRIVER = (12, 0)


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Gpu:
    """One CUDA device, as the driver describes it."""

    name: str
    compute_capability: tuple[int, int]
    num_sms: int
    shared_bytes_per_block: int  # with opt-in, so above 48 KB where the GPU allows it
    memory_bytes: int
    driver: tuple[int, int]  # the newest CUDA version that the driver runs


@dataclass(frozen=True)
class Device:
    """Where kernels run in this process.

    Attributes:
        kind: "gpu", "sim" or "compile".
        name: the GPU's name, or what stands in for it.
        reason: why this device was chosen, one sentence.
        compute_capability: (major, minor); for the simulator, the one that it plays.
        num_sms: streaming multiprocessors, virtual ones in the simulator.
        shared_bytes_per_block: the most shared memory that one block may ask for, in bytes.
        driver: the newest CUDA version that the driver runs, None without a GPU.
        blocks_per_sm: blocks that the simulator keeps on an SM at a time, None on a GPU, where it
            depends on the kernel.
    """

    kind: Kind
    name: str
    reason: str
    compute_capability: tuple[int, int]
    num_sms: int
    shared_bytes_per_block: int
    driver: tuple[int, int] | None = None
    blocks_per_sm: int | None = None

    @property
    def is_gpu(self) -> bool:
        """True where kernels run on hardware and times mean something."""
        return self.kind == "gpu"


# CUdevice_attribute numbers, from the driver API's cuda.h.
_ATTRIBUTES = {
    "num_sms": 16,  # MULTIPROCESSOR_COUNT
    "major": 75,  # COMPUTE_CAPABILITY_MAJOR
    "minor": 76,  # COMPUTE_CAPABILITY_MINOR
    "shared_bytes_per_block": 97,  # MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
}


def _load_driver() -> ctypes.CDLL | None:
    names = {
        "Linux": ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"),
        "Windows": ("nvcuda.dll",),
    }
    for name in names.get(platform.system(), ()):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def probe_gpu() -> tuple[Gpu | None, str]:
    """Ask the CUDA driver for its first device, without importing Numba.

    Returns:
        The first visible GPU and an empty string, or None and the reason why there is none.
    """
    driver = _load_driver()
    if driver is None:
        return None, "no NVIDIA driver was found (libcuda could not be loaded)"
    status = driver.cuInit(0)
    if status != 0:
        return (
            None,
            f"the NVIDIA driver is there but finds no usable GPU (cuInit returned {status})",
        )

    def ask(function: str, *args: object) -> int:
        value = ctypes.c_int()
        status = getattr(driver, function)(ctypes.byref(value), *args)
        if status != 0:
            raise DeviceError(f"the NVIDIA driver failed: {function} returned {status}")
        return value.value

    if ask("cuDeviceGetCount") == 0:
        return None, "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"
    handle = ask("cuDeviceGet", 0)
    facts = {key: ask("cuDeviceGetAttribute", code, handle) for key, code in _ATTRIBUTES.items()}
    version = ask("cuDriverGetVersion")
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, handle)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    return (
        Gpu(
            name=name.value.decode(),
            compute_capability=(facts["major"], facts["minor"]),
            num_sms=facts["num_sms"],
            shared_bytes_per_block=facts["shared_bytes_per_block"],
            memory_bytes=memory.value,
            driver=(version // 1000, version % 1000 // 10),
        ),
        "",
    )


def why_unusable(gpu: Gpu) -> str:
    """Say in one sentence why the lessons cannot run on this GPU; empty if they can."""
    if gpu.compute_capability < OLDEST_COMPUTE_CAPABILITY:
        have = "{}.{}".format(*gpu.compute_capability)
        need = "{}.{}".format(*OLDEST_COMPUTE_CAPABILITY)
        return f"the GPU {gpu.name} has compute capability {have} and the lessons need {need} or newer"
    if gpu.driver < OLDEST_DRIVER:
        have = "{}.{}".format(*gpu.driver)
        need = "{}.{}".format(*OLDEST_DRIVER)
        return f"the NVIDIA driver runs CUDA {have} and the lessons need {need} or newer: update the driver"
    return ""


def _setting(name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = os.environ.get(name, default).strip().lower()
    if value not in allowed:
        raise DeviceError(f"{name}={value!r} is not known: use one of {', '.join(allowed)}")
    return value


def numba_cuda_config() -> Any:
    """The settings that `numba.cuda` goes by: numba-cuda has its own, plain numba has one for all."""
    try:
        return import_module("numba.cuda.core.config")
    except ModuleNotFoundError:
        return import_module("numba.core.config")


def _tell_numba(kind: Kind) -> None:
    """Switch Numba to hardware or simulator, or say that it is too late."""
    simulate = kind == "sim"
    if "numba.cuda" in sys.modules:
        config = numba_cuda_config()
        if bool(config.ENABLE_CUDASIM) != simulate:
            have, want = ("simulator", "GPU") if config.ENABLE_CUDASIM else ("GPU", "simulator")
            raise DeviceError(
                f"numba.cuda was imported before gemm_lessons and is in {have} mode, but {want} mode is"
                " needed: restart Python and import gemm_lessons first"
                f" (or set NUMBA_ENABLE_CUDASIM={int(simulate)})"
            )
        return
    os.environ["NUMBA_ENABLE_CUDASIM"] = str(int(simulate))
    if "numba" in sys.modules:
        # why: numba reads its settings once, when it is imported; numba.cuda asks them later.
        settings: Any = import_module("numba.core.config")
        settings.ENABLE_CUDASIM = int(simulate)


@functools.cache
def choose() -> Device:
    """Choose the device for this process, on the first call, and keep the choice.

    Returns:
        The device that kernels of this process run on.

    Raises:
        DeviceError: a GPU was demanded and none is usable; a setting has an unknown value; or
            `numba.cuda` was imported first in the other mode.
    """
    wanted = _setting("GEMM_LESSONS_DEVICE", "auto", ("auto", "gpu", "sim", "compile"))
    if wanted == "compile":
        _tell_numba("compile")
        return Device("compile", "compiler only", "GEMM_LESSONS_DEVICE=compile", (9, 0), 1, 232448)
    reason = "GEMM_LESSONS_DEVICE=sim"
    if wanted != "sim":
        gpu, reason = probe_gpu()
        reason = reason or (why_unusable(gpu) if gpu else "")
        if gpu and not reason:
            _tell_numba("gpu")
            return Device(
                "gpu",
                gpu.name,
                "a usable GPU was found" if wanted == "auto" else "GEMM_LESSONS_DEVICE=gpu",
                gpu.compute_capability,
                gpu.num_sms,
                gpu.shared_bytes_per_block,
                gpu.driver,
            )
        if wanted == "gpu":
            raise DeviceError(
                f"GEMM_LESSONS_DEVICE=gpu, but {reason}; unset it to use the simulator,"
                " or run `gemm-lessons doctor` to see what to install"
            )
    _tell_numba("sim")
    from gemm_lessons import sim

    sim.install()
    played = sim.settings()
    return Device(
        "sim",
        f"{played.mode} simulator",
        reason,
        played.compute_capability,
        played.sms,
        played.shared_bytes,
        blocks_per_sm=played.blocks_per_sm,
    )
