"""What results are measured on: the device, its clocks, its driver, and versions of the software."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from gemm_lessons import device

_PACKAGES = ("gemm-lessons", "numba-cuda", "numba", "numpy", "torch", "cuda-toolkit", "cuda-bindings")


def versions() -> dict[str, str]:
    """Versions of what can change a time; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this checkout, with + if files differ from it.

    GEMM_LESSONS_COMMIT names it for a copy without its history; without either it is "unknown".
    """
    unknown = "unknown"
    if named := os.environ.get("GEMM_LESSONS_COMMIT"):
        return named
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changes = subprocess.run([*git, "status", "-s", "-uno"], capture_output=True, text=True)
    except OSError:
        return unknown
    if found.returncode:
        return unknown
    return found.stdout.strip() + ("+" if changes.stdout.strip() else "")


def machine() -> dict[str, Any]:
    """Describe the chosen device and the software that runs on it."""
    chosen = device.choose()
    return {
        "device": chosen.name,
        "compute_capability": list(chosen.compute_capability),
        "num_sms": chosen.num_sms,
        "driver_cuda": "{}.{}".format(*chosen.driver) if chosen.driver else None,
        "driver": driver_version(),
        "clocks": clocks(),
        "versions": versions(),
        "commit": commit(),
        "platform": platform.platform(terse=True),
    }


# nvmlClockType_t and function names, from NVML's nvml.h.
_SM_CLOCK, _MEMORY_CLOCK = 1, 2


def _open_nvml() -> tuple[ctypes.CDLL, ctypes.c_void_p] | None:
    """NVML and the handle of the first visible GPU, or None where NVML cannot be used."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    bus_id, handle = ctypes.create_string_buffer(64), ctypes.c_void_p()
    # why by bus: NVML counts all GPUs, CUDA only those in CUDA_VISIBLE_DEVICES
    if cuda.cuInit(0) or cuda.cuDeviceGetPCIBusId(bus_id, 64, 0) or nvml.nvmlInit_v2():
        return None
    if nvml.nvmlDeviceGetHandleByPciBusId_v2(bus_id, ctypes.byref(handle)):
        return None
    return nvml, handle


def clocks() -> dict[str, int]:
    """Clocks in MHz and power in mW right now, by NVML; what it does not tell is left out."""
    opened = _open_nvml()
    if opened is None:
        return {}
    nvml, handle = opened
    queries: dict[str, tuple[Any, tuple[int, ...]]] = {
        "sm_mhz": (nvml.nvmlDeviceGetClockInfo, (_SM_CLOCK,)),
        "memory_mhz": (nvml.nvmlDeviceGetClockInfo, (_MEMORY_CLOCK,)),
        "most_sm_mhz": (nvml.nvmlDeviceGetMaxClockInfo, (_SM_CLOCK,)),
        "milliwatts": (nvml.nvmlDeviceGetPowerUsage, ()),
        "most_milliwatts": (nvml.nvmlDeviceGetEnforcedPowerLimit, ()),
    }
    found = {}
    for key, (function, arguments) in queries.items():
        value = ctypes.c_uint()
        if function(handle, *arguments, ctypes.byref(value)) == 0:
            found[key] = value.value
    return found


def driver_version() -> str | None:
    """The NVIDIA driver's own version, such as 580.95.05, or None without NVML."""
    opened = _open_nvml()
    if opened is None:
        return None
    version = ctypes.create_string_buffer(96)
    if opened[0].nvmlSystemGetDriverVersion(version, 96):
        return None
    return version.value.decode()
