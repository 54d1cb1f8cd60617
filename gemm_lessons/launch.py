"""Prepared launches: the same calls on a GPU and in the simulator.

Numba's dispatcher spends 35 to 40 us of host time on every call (it looks up types and converts
arguments).  A `Launch` does that work once, so that calling it costs little more than the driver does (15 to
30 us on the slow host of the recorded H200, where a call of torch takes 35 to 39), and hides that
the simulator has no driver.  A `Prepared` step is a problem with all its buffers and launches, ready to
run any number of times without allocating; a `Graph` replays one as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import (
    FLOAT32_BITS,
    NUM_GUARD_ROWS,
    Comparison,
    check_output,
    output_dtype,
    poisoned,
)
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.quantize import Quantized, QuantizedInputs, turn_scales

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

Stream = Any  # a Numba stream, anything with __cuda_stream__, or None for the default stream
Part = Callable[[Stream], None]

MOST_GRID = (2**31 - 1, 65535, 65535)
DEFAULT_SHARED_BYTES = 48 * 1024  # more must be asked for, kernel by kernel


class LaunchError(RuntimeError):
    """A launch that no GPU would accept; raised before anything is launched."""


class Launch:
    """One kernel with its grid, block, shared memory, cluster and arguments, ready to go.

    Calling it enqueues the kernel on a stream and returns at once.

    Args:
        kernel: what `@cuda.jit` made.
        grid: blocks, one to three numbers.
        block: threads per block, one to three numbers.
        arguments: the kernel's arguments; arrays must be on the device already.
        shared_bytes: dynamic shared memory per block.
        cluster: blocks per cluster along x (compute capability 9.0 on).
        keep_alive: arrays that the kernel knows by their addresses only.

    Raises:
        LaunchError: an empty or too large grid, one that clusters do not divide, or more shared memory than
            the device has.
    """

    def __init__(
        self,
        kernel: Any,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        arguments: tuple[Any, ...],
        *,
        shared_bytes: int = 0,
        cluster: int = 1,
        keep_alive: tuple[Any, ...] = (),
    ) -> None:
        self.keep_alive = keep_alive
        self.kernel = kernel
        self.grid = (grid,) if isinstance(grid, int) else tuple(grid)
        self.block = (block,) if isinstance(block, int) else tuple(block)
        self.arguments = arguments
        self.shared_bytes = shared_bytes
        self.cluster = cluster
        self._check()
        if device.choose().is_gpu:
            self._enqueue = self._prepare_for_gpu()
        else:
            self._enqueue = self._prepare_for_simulator()

    def __call__(self, stream: Stream = None) -> None:
        """Enqueue the kernel on the stream, the default one if none is given."""
        self._enqueue(stream)

    @property
    def num_blocks(self) -> int:
        """Blocks of one launch."""
        return int(np.prod(self.grid))

    def _check(self) -> None:
        chosen = device.choose()
        for extent, most in zip(self.grid, MOST_GRID, strict=False):
            if extent < 1:
                raise LaunchError(f"the grid {self.grid} is empty: skip the launch where there is no work")
            if extent > most:
                raise LaunchError(f"the grid {self.grid} is too large: one axis may have {most} blocks")
        threads = int(np.prod(self.block))
        if not 1 <= threads <= 1024:
            raise LaunchError(f"a block of {self.block} has {threads} threads: use 1 to 1024")
        if self.cluster < 1 or self.grid[0] % self.cluster:
            raise LaunchError(f"a grid of {self.grid} cannot be cut into clusters of {self.cluster} blocks")
        if self.shared_bytes > chosen.shared_bytes_per_block:
            raise LaunchError(
                f"{self.shared_bytes} bytes of shared memory per block are asked for and {chosen.name}"
                f" has {chosen.shared_bytes_per_block}: use smaller tiles or fewer stages"
            )
        if chosen.kind == "compile":
            raise LaunchError("GEMM_LESSONS_DEVICE=compile only compiles: nothing can be launched")

    def _prepare_for_simulator(self) -> Callable[[Stream], None]:
        def enqueue(stream: Stream) -> None:
            self.kernel[self.grid, self.block, stream or 0, self.shared_bytes](*self.arguments)

        def enqueue_clusters(stream: Stream) -> None:
            from gemm_lessons import sim

            sim.launch(
                self.kernel,
                self.grid,
                self.block,
                self.arguments,
                shared_bytes=self.shared_bytes,
                cluster=self.cluster,
            )

        return enqueue if self.cluster == 1 else enqueue_clusters

    @cached_property
    def _compiled(self) -> Any:
        """Numba's compiled kernel for the types of these arguments."""
        return next(iter(self.kernel.specialize(*self.arguments).overloads.values()))

    def _prepare_for_gpu(self) -> Callable[[Stream], None]:
        from cuda.bindings import driver
        from cuda.core import LaunchConfig, launch
        from numba.cuda.cudadrv.driver import _to_core_stream

        function = self._compiled._codelibrary.get_cufunc()
        if self.shared_bytes > DEFAULT_SHARED_BYTES:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            status, *_ = driver.cuKernelSetAttribute(
                attribute, self.shared_bytes, function.kernel.handle, driver.CUdevice(0)
            )
            if status != driver.CUresult.CUDA_SUCCESS:
                raise LaunchError(f"the driver refused {self.shared_bytes} bytes of shared memory: {status}")
        values: list[Any] = []
        for type_, argument in zip(self._compiled.argument_types, self.arguments, strict=True):
            self._compiled._prepare_args(type_, argument, 0, [], values)
        grid, options = self.grid, {}
        if self.cluster > 1:  # why divided: here the grid of a launch with clusters counts clusters
            grid, options = (grid[0] // self.cluster, *grid[1:]), {"cluster": self.cluster}
        config = LaunchConfig(grid=grid, block=self.block, shmem_size=self.shared_bytes, **options)

        def enqueue(stream: Stream) -> None:
            launch(_to_core_stream(stream or 0), config, function.kernel, *values)

        return enqueue

    def resources(self) -> dict[str, int]:
        """Registers per thread and bytes per thread and block; empty in the simulator."""
        if not device.choose().is_gpu:
            return {}
        return {
            "registers": self._compiled.regs_per_thread,
            "local_bytes": self._compiled.local_mem_per_thread,
            "shared_bytes": self._compiled.shared_mem_per_block + self.shared_bytes,
        }


def num_resident_blocks(kernel: Any, block: int, arguments: tuple[Any, ...], *, shared_bytes: int = 0) -> int:
    """How many blocks of a kernel run at the same time on the whole device: SMs times occupancy.

    A persistent kernel must not launch more: the others would start only when the first ones end.

    Raises:
        LaunchError: not even one block fits on an SM.
    """
    chosen = device.choose()
    if chosen.blocks_per_sm is not None:
        return chosen.num_sms * chosen.blocks_per_sm
    compiled = next(iter(kernel.specialize(*arguments).overloads.values()))
    function = compiled._codelibrary.get_cufunc()
    context = cuda.current_context()
    per_sm = int(context.get_active_blocks_per_multiprocessor(function, block, shared_bytes))
    if per_sm < 1:
        raise LaunchError(
            f"a block of {block} threads with {compiled.regs_per_thread} registers each and"
            f" {compiled.shared_mem_per_block + shared_bytes} bytes of shared memory does not fit on an SM"
        )
    return per_sm * chosen.num_sms


@dataclass(frozen=True)
class Work:
    """What a step does, counted, so that it can be compared where nothing can be timed.

    Attributes:
        launches: kernel launches per call.
        blocks: thread blocks over all launches.
        tiles: output tiles, or outputs for a step that has no tiles.
        flops: multiplies and adds that are really done, those on padding included.
        packed_bytes: bytes copied only to change the layout.
    """

    launches: int
    blocks: int
    tiles: int
    flops: int
    packed_bytes: int = 0


@dataclass
class Prepared:
    """A step on one problem: buffers filled, kernels compiled, ready to be launched again and again.

    Attributes:
        problem: what is computed.
        config: the step's compile-time constants.
        parts: what a call consists of, in order, by name ("pack", "gemm", ...).
        output: device array [NUM_GUARD_ROWS + total_tokens + NUM_GUARD_ROWS, N], y between guard rows.
        work: the step's work, counted.
        tile: rows and columns of an output tile.
        accumulator_bits: of sums of FP8 products, see `compare.scaled_tolerance`.
    """

    problem: GroupedProblem
    config: Any
    parts: Mapping[str, Part]
    output: Any
    work: Work
    tile: tuple[int, int] = (1, 1)
    keep_alive: tuple[Any, ...] = field(default=())  # arrays that only raw addresses refer to
    accumulator_bits: int = FLOAT32_BITS

    def poison(self) -> None:
        """Overwrite y and its guard rows with poison, so that an old result cannot pass for a new one."""
        rows, columns = self.output.shape
        _as_bits(self.output).copy_to_device(_as_bits(poisoned(rows, columns, self.output.dtype)))

    def result(self) -> np.ndarray[Any, Any]:
        """Wait for the device and copy y with its guard rows to the host."""
        cuda.synchronize()
        guarded: np.ndarray[Any, Any] = _as_bits(self.output).copy_to_host().view(self.output.dtype)
        return guarded

    def check(self, inputs: Inputs | QuantizedInputs) -> Comparison:
        """Poison the output, launch everything once, and judge the result against NumPy."""
        self.poison()
        launch_parts(self)
        return self.judge(inputs)

    def judge(self, inputs: Inputs | QuantizedInputs) -> Comparison:
        """Compare what stands in the output now with NumPy."""
        return check_output(
            self.result(), self.problem, inputs, tile=self.tile, accumulator_bits=self.accumulator_bits
        )


class HasParts(Protocol):
    """What can be launched part by part, and recorded: a prepared step, or a layer made of several."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """What a call consists of, in order, by name."""


def launch_parts(prepared: HasParts, stream: Stream = None) -> None:
    """Enqueue all parts, in order; allocates nothing."""
    for part in prepared.parts.values():
        part(stream)


def guarded_output(problem: GroupedProblem) -> tuple[Any, Any]:
    """Allocate y between guard rows, all poison.

    Returns:
        The whole device array, and the view of it that is y [total_tokens, N].
    """
    rows = problem.total_tokens + 2 * NUM_GUARD_ROWS
    output = to_device(poisoned(rows, problem.N, output_dtype(problem.dtype)))
    return output, output[NUM_GUARD_ROWS : rows - NUM_GUARD_ROWS]


def to_device(array: Any) -> Any:
    """Copy a NumPy array to the device; what is on a device already stays where it is."""
    if isinstance(array, np.ndarray):
        return cuda.to_device(_as_bits(np.ascontiguousarray(array))).view(array.dtype)
    # One of Numba's, real or simulated: the interface below has no name for bfloat16.
    if hasattr(array, "copy_to_host"):
        return array
    return cuda.as_cuda_array(array)


def start_of(array: Any) -> int:
    """Address of a device array's first element; 0 in the simulator, whose arrays are always aligned."""
    start: int = getattr(array, "__cuda_array_interface__", {"data": (0,)})["data"][0]
    return start


def quantized_to_device(quantized: Quantized) -> Quantized:
    """Copy values and scales to the device, those of a matrix also turned; what is there already stays."""
    scales, turned = quantized.scales, quantized.turned
    if turned is None and isinstance(scales, np.ndarray) and scales.ndim == 2:
        turned = turn_scales(scales)
    if turned is not None:
        turned = to_device(turned)
    return quantized._replace(values=to_device(quantized.values), scales=to_device(scales), turned=turned)


def _as_bits(array: Any) -> Any:
    """An array's elements as unsigned integers: Python's buffers know no bfloat16, so copies need this."""
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))


class Graph:
    """A prepared step recorded as a CUDA graph: one call replays all its launches.

    In the simulator, which has no graphs, replaying calls the parts again; the results are the same.
    """

    def __init__(self, prepared: HasParts) -> None:
        self._prepared = prepared
        self._executable = self._capture() if device.choose().is_gpu else None

    def _capture(self) -> Any:
        from cuda.bindings import driver

        launch_parts(self._prepared)  # why: modules load on first use, which a capture does not allow
        cuda.synchronize()
        stream = cuda.stream()
        handle = int(stream)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _must(driver.cuStreamBeginCapture(handle, mode), "begin a graph capture")
        try:
            launch_parts(self._prepared, stream)
        finally:  # why: a capture that is left open makes later calls of this thread fail
            graph = _must(driver.cuStreamEndCapture(handle), "end a graph capture")
        executable = _must(driver.cuGraphInstantiate(graph, 0), "instantiate a graph")
        _must(driver.cuGraphDestroy(graph), "free a graph")
        return executable

    def __call__(self, stream: Stream = None) -> None:
        """Replay the recorded launches on a stream."""
        if self._executable is None:
            launch_parts(self._prepared, stream)
            return
        from cuda.bindings import driver
        from numba.cuda.cudadrv.driver import _to_core_stream

        handle = int(_to_core_stream(stream or 0).handle)
        _must(driver.cuGraphLaunch(self._executable, handle), "launch a graph")


def _must(answer: tuple[Any, ...], action: str) -> Any:
    """Return a driver call's result, or raise what it says."""
    status, *results = answer
    if int(status) != 0:
        raise LaunchError(f"the CUDA driver could not {action}: {status.name}")
    return results[0] if results else None
