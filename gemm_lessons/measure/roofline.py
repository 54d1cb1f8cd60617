"""The roofline of a problem on a device: the least time it can take, from measured limits.

    time >= FLOPs / arithmetic peak       and       time >= least bytes / bandwidth

    TFLOP/s |        ________  arithmetic peak
            |      /
            |    /  bandwidth x FLOPs per byte
            |__/______________ FLOPs per byte

Data sheets promise more than a device does, so every limit is measured, once per device and driver, and
kept in the user's cache folder.  What cannot be measured here has a reason instead of a number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.measure.timing import CudaGpu, Rules, time_calls
from gemm_lessons.problem import GroupedProblem

MATMUL_EXTENT = 8192


@dataclass(frozen=True)
class Peaks:
    """Measured limits of one device.

    Attributes:
        copy_bytes_per_s: device-to-device copy, bytes read plus bytes written.
        read_bytes_per_s: reading alone.
        flops_per_s: dtype -> multiplies plus adds; only what could be measured.  "bfloat16, mma.sync" is what
            that instruction reaches in registers, the limit of the step tensor_core.
        not_measured: dtype -> why there is no arithmetic peak.
    """

    copy_bytes_per_s: float
    read_bytes_per_s: float
    flops_per_s: dict[str, float] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def bytes_per_s(self) -> float:
        """The better of the two bandwidths, so that no kernel is flattered."""
        return max(self.copy_bytes_per_s, self.read_bytes_per_s)

    def least_us(self, problem: GroupedProblem) -> float | None:
        """The least time of a problem in microseconds; None where its dtype's peak was not measured."""
        if problem.dtype not in self.flops_per_s:
            return None
        arithmetic = problem.useful_flops / self.flops_per_s[problem.dtype]
        return max(arithmetic, problem.least_bytes / self.bytes_per_s) * 1e6

    def percent(self, problem: GroupedProblem, measured_us: float) -> float | None:
        """How much of its roofline a kernel reached, 0 to 100; None without a peak."""
        least = self.least_us(problem)
        return None if least is None else 100 * least / measured_us

    def percent_of_read(self, problem: GroupedProblem, measured_us: float) -> float:
        """The fewest bytes of a problem, per second, of the bandwidth of reading alone; 0 to 100."""
        return 100 * problem.least_bytes / (measured_us * 1e-6) / self.read_bytes_per_s


def cache_path() -> Path:
    """Where measured peaks are kept; XDG_CACHE_HOME is honoured."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "gemm-lessons" / "peaks.json"


def peaks(gpu: CudaGpu, *, refresh: bool = False) -> Peaks:
    """The limits of the chosen GPU, from the cache or measured now (a few seconds).

    Args:
        gpu: where to measure.
        refresh: measure again, whatever the cache holds.

    Raises:
        TimingError: there is no GPU (raised by `CudaGpu`).
    """
    chosen = device.choose()
    key = f"{chosen.name}, CUDA {chosen.driver}"
    cached = _read_cache()
    if key in cached and not refresh:
        found = Peaks(**cached[key])
        # why: peaks that torch measures may have been out of reach then and not now
        if not (found.not_measured and _has_torch()):
            return found
    measured = measure(gpu)
    cached[key] = asdict(measured)
    path = cache_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cached, indent=1), encoding="utf-8")
    except OSError:
        pass  # why: a read-only home only means measuring again next time
    return measured


def _read_cache() -> dict[str, Any]:
    try:
        found = json.loads(cache_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def measure(gpu: CudaGpu) -> Peaks:
    """Measure every limit of the chosen GPU."""
    copy, read = _bandwidths(gpu)  # why first: behind products, which are bound by power, clocks are low
    flops, missing = _matmul_peaks(gpu)
    flops["float32"] = _fma_peak(gpu)
    for dtype in ("float16", "bfloat16"):
        if device.choose().compute_capability >= (8, 0):
            flops[f"{dtype}, mma.sync"] = mma_peak(gpu, dtype)
    return Peaks(copy, read, flops, missing)


def _rate(amount: float, calls: list[Callable[[Any], None]], gpu: CudaGpu) -> float:
    return amount / (time_calls(calls, gpu, Rules(samples=10)).median_us * 1e-6)


def _bandwidths(gpu: CudaGpu) -> tuple[float, float]:
    from cuda.bindings import driver
    from numba import cuda

    from gemm_lessons.measure import probes

    free, _ = cuda.current_context().get_memory_info()
    grid = probes.BLOCKS_PER_SM * device.choose().num_sms
    num_values = int(min(2**30, free // 4)) // 4
    num_values -= num_values % probes.values_read_at_a_time(grid)
    source, target = (cuda.to_device(np.zeros(num_values, np.float32)) for _ in range(2))
    sink = cuda.to_device(np.zeros(1, np.float32))
    addresses = [array.__cuda_array_interface__["data"][0] for array in (target, source)]

    def copy(stream: Any) -> None:
        gpu.ask(driver.cuMemcpyDtoDAsync, *addresses, num_values * 4, int(stream))

    def read(stream: Any) -> None:
        probes.read_kernel[grid, probes.THREADS, stream](source, sink)

    return _rate(2 * num_values * 4, [copy], gpu), _rate(num_values * 4, [read], gpu)


def _fma_peak(gpu: CudaGpu) -> float:
    from numba import cuda

    from gemm_lessons.measure import probes

    rounds = 2000
    grid = probes.BLOCKS_PER_SM * device.choose().num_sms
    sink = cuda.to_device(np.zeros(1, np.uint64))

    def multiply_add(stream: Any) -> None:
        probes.fma_kernel[grid, probes.THREADS, stream](
            np.int32(rounds), np.float32(0.999), np.float32(0.001), sink
        )

    flops = 2 * grid * probes.THREADS * rounds * probes.FMA_UNROLL * probes.CHAINS
    return _rate(flops, [multiply_add], gpu)


def mma_peak(gpu: CudaGpu, dtype: str) -> float:
    """FLOP/s of mma.sync m16n8k16 on registers alone, float16 or bfloat16."""
    from numba import cuda

    from gemm_lessons.measure import probes

    rounds = 4000
    grid = probes.MMA_BLOCKS_PER_SM * device.choose().num_sms
    numbers = np.random.default_rng(0).standard_normal((probes.THREADS, 12)).astype(np.float16)
    bits = cuda.to_device(numbers.view(np.uint32))
    sink = cuda.to_device(np.zeros(1, np.uint32))

    def multiply(stream: Any) -> None:
        probes.mma_kernels[dtype][grid, probes.THREADS, stream](np.int32(rounds), bits, sink)

    warps = grid * probes.THREADS // 32
    return _rate(warps * rounds * probes.MMA_CHAINS * probes.MMA_FLOPS, [multiply], gpu)


def _has_torch() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def _matmul_peaks(gpu: CudaGpu) -> tuple[dict[str, float], dict[str, str]]:
    """Peaks of the tensor cores, as far as torch's matrix product reaches them."""
    flops: dict[str, float] = {}
    missing: dict[str, str] = {}
    dtypes = ("float16", "bfloat16", "float8_e4m3fn")
    if not _has_torch():
        return flops, dict.fromkeys(dtypes, "torch is not installed (extra: peers)")
    import torch

    if not torch.cuda.is_available():
        return flops, dict.fromkeys(dtypes, "the installed torch cannot use this GPU")
    for dtype in dtypes:
        try:
            flops[dtype] = _rate(2 * MATMUL_EXTENT**3, [_torch_matmul(torch, dtype)], gpu)
        except (RuntimeError, AttributeError) as error:
            missing[dtype] = f"torch cannot multiply {dtype} here: {str(error).splitlines()[0]}"
    return flops, missing


def _torch_matmul(torch: Any, dtype: str) -> Callable[[Any], None]:
    kind = getattr(torch, dtype)
    a = torch.randn(MATMUL_EXTENT, MATMUL_EXTENT, device="cuda").to(kind)
    b = torch.randn(MATMUL_EXTENT, MATMUL_EXTENT, device="cuda").to(kind).t()
    one = torch.ones((), device="cuda")

    def multiply(stream: Any) -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(int(stream))):
            if dtype == "float8_e4m3fn":
                torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
            else:
                torch.matmul(a, b)

    return multiply
