"""What runs here, and what to install so that more does."""

from __future__ import annotations

import importlib
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from gemm_lessons import device
from gemm_lessons.measure import machine
from gemm_lessons.measure.results import recorded

PACKAGES = ("numpy", "numba", "numba-cuda", "ml-dtypes", "matplotlib", "pytest", "cuda-toolkit", "torch")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        state: what was found.
        advice: what to do, empty if nothing.
        broken: nothing can run until it is done.
    """

    subject: str
    state: str
    advice: str = ""
    broken: bool = False


def examine() -> list[Finding]:
    """Look at the device, the driver, the packages and the tools; never raises."""
    return [*_device(), *_gpu(), *_python(), *_packages(), *_tools()]


def _device() -> list[Finding]:
    try:
        chosen = device.choose()
    except device.DeviceError as error:
        return [Finding("device", "none", str(error), broken=True)]
    capability = "{}.{}".format(*chosen.compute_capability)
    virtual = "" if chosen.is_gpu else "virtual "
    return [
        Finding("device", f"{chosen.name}: {chosen.reason}"),
        Finding("", f"compute capability {capability}, {chosen.num_sms} {virtual}SMs,"
                    f" {chosen.shared_bytes_per_block:,} bytes of shared memory per block"),
    ]  # fmt: skip


def _gpu() -> list[Finding]:
    try:
        gpu, reason = device.probe_gpu()
    except device.DeviceError as error:
        return [Finding("GPU", "the driver answers with an error", str(error))]
    if gpu is None:
        return [Finding("GPU", reason, _advice_without_gpu())]
    found = [
        Finding("GPU", f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB", device.why_unusable(gpu)),
        Finding(
            "driver",
            f"{machine.driver_version() or 'version unknown'}, runs CUDA {gpu.driver[0]}.{gpu.driver[1]}",
        ),
    ]
    if not _version("cuda-toolkit"):
        extra = "cu13" if gpu.driver >= (13, 0) else "cu12"
        found.append(
            Finding(
                "compiler",
                "the CUDA wheels are not installed",
                f"pip install 'gemm-lessons[{extra}]', unless a CUDA toolkit is installed otherwise",
            )
        )
    return found


def _advice_without_gpu() -> str:
    if platform.system() == "Darwin":
        return "nothing: macOS has no CUDA, and every lesson runs in the simulator"
    return (
        "nothing: every lesson runs in the simulator; for a GPU, install NVIDIA's driver for CUDA 12 or newer"
    )


def _python() -> list[Finding]:
    return [Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    found = [Finding("packages", ", ".join(f"{name} {_version(name) or 'missing'}" for name in PACKAGES))]
    numpy = _version("numpy")
    if numpy and tuple(int(part) for part in numpy.split(".")[:2]) >= (2, 5):
        found.append(
            Finding(
                "numpy",
                numpy,
                "pip install 'numpy<2.5': numba-cuda 0.30 cannot import newer ones",
                broken=True,
            )
        )
    try:
        importlib.import_module("numba.cuda")
    except (
        Exception
    ) as error:  # why so wide: a broken install fails in many ways, and this is the report on it
        found.append(
            Finding("numba.cuda", f"cannot be imported: {error}", "pip install gemm-lessons", broken=True)
        )
    if find_spec("torch") is None:
        found.append(
            Finding(
                "peers", "torch is not installed", "pip install 'gemm-lessons[peers]' to compare with torch"
            )
        )
    return found


def _tools() -> list[Finding]:
    sanitizer = shutil.which("compute-sanitizer")
    advice = "" if sanitizer else "only `make gpu-check` uses it; the CUDA toolkit has it"
    record = recorded("float32")
    return [
        Finding("compute-sanitizer", sanitizer or "not found", advice),
        Finding("recorded", record.label if record else "no times are recorded yet"),
    ]
