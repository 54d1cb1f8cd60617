"""The timing protocol, written once.

    warm up | flush | E call E | flush | E call E | flush | E call E | ... | check every output again
                      `-- set 0          `-- set 1          `-- set 0
      E: an event on the device; the time between two of them is a sample

Compiling and warming up are outside, several input sets take turns, and the answer is the median with its
spread.  The L2 cache is flushed before every sample, and left clean: what is written to flush it would else
go back to memory at the expense of the call (docs/decode_log.md has numbers).  While the device flushes, the
host enqueues the call, so that its work is hidden; `host_time` measures that work by itself.

Nothing is ever timed in the simulator: a time that is not one is worse than none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Launch

Call = Callable[[Any], None]  # enqueues work on a stream

LEAST_FLUSH_BYTES = 128 * 2**20


class TimingError(RuntimeError):
    """Timing was asked for where it would mean nothing."""


@dataclass(frozen=True)
class Rules:
    """The numbers of the protocol, recorded with every result.

    Attributes:
        samples: timed calls, at most.
        least_samples: timed calls, at least, however slow they are.
        warmups: calls before the first sample.
        seconds: stop after this much device time, once there are least_samples.
        host_calls: calls enqueued in a row to measure the host's work.
    """

    samples: int = 30
    least_samples: int = 5
    warmups: int = 3
    seconds: float = 0.5
    host_calls: int = 10

    @property
    def once(self) -> Rules:
        """The same protocol with a single sample: for what a slow call cannot show anyway."""
        return replace(self, samples=1, least_samples=1, warmups=1, host_calls=1)

    @classmethod
    def quick(cls) -> Rules:
        """Fewer samples: for a demo, not for the record."""
        return cls(samples=10, least_samples=3, warmups=2, seconds=0.1, host_calls=5)

    def describe(self) -> dict[str, Any]:
        """The protocol as recorded in a results file."""
        return {**asdict(self), "statistic": "median", "l2": "flushed before every sample, and clean"}


@dataclass(frozen=True)
class Timing:
    """Samples of one call, in microseconds.

    Attributes:
        median_us: the middle sample.
        iqr_us: spread: the middle half of the samples lies in an interval this wide.
        samples: how many there were.
    """

    median_us: float
    iqr_us: float
    samples: int


class Gpu(Protocol):
    """What the protocol needs from a device; `CudaGpu` is the real one, tests bring their own."""

    stream: Any

    def flush(self) -> None:
        """Enqueue work that pushes everything out of the L2 cache."""

    def record(self) -> Any:
        """Enqueue an event and return it."""

    def elapsed_us(self, start: Any, stop: Any) -> float:
        """Microseconds on the device between two events that have happened."""

    def wait(self) -> None:
        """Wait until the device has done everything."""


class CudaGpu:
    """The chosen GPU with a stream and a buffer to flush its L2 cache with.

    Raises:
        TimingError: there is no GPU: kernels run in the simulator.
    """

    def __init__(self) -> None:
        chosen = device.choose()
        if not chosen.is_gpu:
            raise TimingError(
                f"nothing can be timed on the {chosen.name} ({chosen.reason}):"
                " its times say nothing about a GPU; look at the counted work instead"
            )
        from cuda.bindings import driver
        from numba import cuda

        from gemm_lessons.measure import probes

        self._cuda, self._driver = cuda, driver
        self.stream = cuda.stream()
        attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
        (l2_bytes,) = self.ask(driver.cuDeviceGetAttribute, attribute, driver.CUdevice(0))
        self.flush_bytes = max(LEAST_FLUSH_BYTES, 2 * l2_bytes)
        self._buffer = cuda.device_array(self.flush_bytes, np.uint8)
        self._address = self._buffer.__cuda_array_interface__["data"][0]
        grid = probes.BLOCKS_PER_SM * chosen.num_sms
        num_values = self.flush_bytes // 4 + probes.values_read_at_a_time(grid)
        num_values -= num_values % probes.values_read_at_a_time(grid)
        values, sink = (cuda.to_device(np.zeros(count, np.float32)) for count in (num_values, 1))
        self._read_others = Launch(probes.read_kernel, grid, probes.THREADS, (values, sink))

    @staticmethod
    def ask(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> list[Any]:
        """Call a function of the CUDA driver and return its results.

        Raises:
            TimingError: the driver refused; what would have been timed is not what was asked for.
        """
        status, *results = function(*arguments)
        if int(status) != 0:
            raise TimingError(f"the CUDA driver refused {function.__name__}: {status.name}")
        return results

    def flush(self) -> None:
        """Write a buffer larger than the L2 cache, twice, then read another one, which leaves it clean."""
        for _ in range(2):
            self.ask(self._driver.cuMemsetD8Async, self._address, 0, self.flush_bytes, int(self.stream))
        self._read_others(self.stream)

    def record(self) -> Any:
        """Enqueue an event on the stream and return it."""
        event = self._cuda.event(timing=True)
        event.record(self.stream)
        return event

    def elapsed_us(self, start: Any, stop: Any) -> float:
        """Microseconds on the device between two events that have happened."""
        return float(self._cuda.event_elapsed_time(start, stop)) * 1e3

    def wait(self) -> None:
        """Wait until the device has done everything; raises what went wrong there."""
        self._cuda.synchronize()


def time_calls(calls: Sequence[Call], gpu: Gpu, rules: Rules) -> Timing:
    """Time a call on the device, by the protocol.

    Args:
        calls: the same work on different inputs; they take turns.
        gpu: where.
        rules: how often.

    Returns:
        Median and spread over the samples.

    Raises:
        ValueError: there is nothing to call.
    """
    if not calls:
        raise ValueError("nothing to time: calls is empty")
    for i in range(max(rules.warmups, len(calls))):  # every one once: modules and graphs load on first use
        calls[i % len(calls)](gpu.stream)
    gpu.wait()
    samples: list[float] = []
    while len(samples) < rules.samples:
        gpu.flush()
        start = gpu.record()
        calls[len(samples) % len(calls)](gpu.stream)
        stop = gpu.record()
        gpu.wait()
        samples.append(gpu.elapsed_us(start, stop))
        if len(samples) >= rules.least_samples and sum(samples) > rules.seconds * 1e6:
            break
    return summarize(samples)


def host_time(calls: Sequence[Call], gpu: Gpu, rules: Rules) -> float:
    """Microseconds that the host spends to enqueue one call.

    The device works at the same time, so this shows only where the device has less to do than the host.
    """
    gpu.wait()
    samples = []
    for _ in range(rules.least_samples):
        start = time.perf_counter()
        for i in range(rules.host_calls):
            calls[i % len(calls)](gpu.stream)
        samples.append((time.perf_counter() - start) / rules.host_calls)
        gpu.wait()  # why inside: a full queue would make the host wait for the device
    return float(np.median(samples)) * 1e6


def time_on_cpu(works: Sequence[Callable[[], object]], *, rounds: int = 7) -> list[Timing]:
    """Time host work by the host's clock: for NumPy on the CPU, never for the simulator.

    The works take turns, so that whatever else this computer does slows all of them down alike.
    """
    for work in works:
        work()
    samples: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, taken in zip(works, samples, strict=True):
            start = time.perf_counter()
            work()
            taken.append((time.perf_counter() - start) * 1e6)
    return [summarize(taken) for taken in samples]


def summarize(samples: Sequence[float]) -> Timing:
    """Median and spread of samples in microseconds."""
    low, middle, high = np.percentile(samples, (25, 50, 75))
    return Timing(float(middle), float(high - low), len(samples))
