"""A grouped product of the layer, on any step of the ladder, with counts that the router left on the device.

Some steps look the counts up themselves, launch by launch; they can be recorded in a CUDA graph and replayed
with other tokens.  The others need them on the host, for a tile list or for the extent of a padded batch:

| step         | where it gets the counts                           | in a CUDA graph |
|--------------|----------------------------------------------------|-----------------|
| padded       | host: the longest expert is the batch's extent      | no              |
| naive        | host: one launch for each expert                    | no              |
| concatenated | device: every row searches the offsets              | yes             |
| tiled        | host: one block for each tile of the list           | no              |
| persistent   | host: the plan of tiles                             | no              |
| masked       | device: slabs with room for every token             | yes             |
| routed       | device: the work loop walks the offsets             | yes             |
| tensor_core  | host: one block for each tile of the list           | no              |
| hopper       | device: a warp of each block finds the tiles        | yes             |
| decode       | device: every block finds its share of the weights  | yes             |
| hopper_fp8   | device: a warp of each block finds the tiles        | yes             |
| tiled_fp8    | host: one block for each tile of the list           | no              |

`routed` is `moe.routed`: the float32 product that can also fetch its rows where their tokens lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS
from gemm_lessons.launch import Launch, Part, Prepared, Stream, launch_parts, num_resident_blocks
from gemm_lessons.moe import routed
from gemm_lessons.moe.permute import PreparedPermutation
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.quantize import Quantized, QuantizedInputs
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps import concatenated, decode, hopper, hopper_fp8, masked, padded, steps_for, tiled

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

COUNT_SIGNATURE = "void(int32[::1], int32[::1])"

ON_DEVICE = (
    "concatenated",
    "masked",
    "routed",
    "hopper",
    "decode",
    "hopper_fp8",
)  # read the counts there, launch by launch


@dataclass(frozen=True)
class Shape:
    """What is known of a product before any token is routed.

    Attributes:
        num_experts: experts, those without tokens included.
        num_rows: rows of x and y, the most that a routing may fill.
        most_tokens: the most tokens of one expert.
        N: output features.
        K: input features.
        dtype: of x, w and y.
    """

    num_experts: int
    num_rows: int
    most_tokens: int
    N: int
    K: int
    dtype: str

    @property
    def problem(self) -> GroupedProblem:
        """A problem with so many rows, however they are routed: for what looks at their sum only."""
        counts = (self.num_rows,) + (0,) * (self.num_experts - 1)
        return GroupedProblem(counts, self.N, self.K, self.dtype)


@dataclass
class HostCounts:
    """The counts of the latest routing on the host: read once, for all steps that need them there.

    Attributes:
        order: the permutation; its counts are read.
        counts: what was read last.
    """

    order: PreparedPermutation
    counts: tuple[int, ...] = field(default=())

    def __call__(self, stream: Stream) -> None:
        """Wait for the stream, and read them.

        Raises:
            RoutingError: tokens had logits that are not finite: who reads the counts is told.
        """
        if stream and device.choose().is_gpu:
            stream.synchronize()
        self.order.raise_if_bad()
        values = self.order.offsets.copy_to_host()
        self.counts = tuple(int(count) for count in np.diff(values))


class HostPlanned:
    """A product on a step that needs the counts on the host: prepared anew whenever they have changed."""

    def __init__(
        self, step: str, shape: Shape, inputs_of: Callable[[int], Any], y: Any, host: HostCounts
    ) -> None:
        self._step = steps_for(shape.dtype)[step]
        self._shape, self._inputs_of, self._y, self._host = shape, inputs_of, y, host
        self._prepared: Prepared | None = None

    def __call__(self, stream: Stream) -> None:
        """Enqueue the step for the counts that were read last, and copy its output to y."""
        counts = self._host.counts
        if self._prepared is None or self._prepared.problem.counts != counts:
            problem = GroupedProblem(counts, self._shape.N, self._shape.K, self._shape.dtype)
            inputs = self._inputs_of(problem.total_tokens)
            self._prepared = self._step.prepare(problem, inputs=inputs)
            cuda.synchronize()  # why: uploads of the preparation run on another stream
        launch_parts(self._prepared, stream)
        total = self._prepared.problem.total_tokens
        if total:
            words = np.dtype(f"u{self._y.dtype.itemsize}")
            rows = self._prepared.output[NUM_GUARD_ROWS : NUM_GUARD_ROWS + total]
            self._y[:total].view(words).copy_to_device(rows.view(words), stream=stream or 0)


def check_step(step: str, dtype: str) -> None:
    """Refuse a step that does not exist, or does not compute in this dtype.

    Raises:
        ProblemError: with the steps that do.
    """
    names = [*steps_for(dtype), *(("routed",) if dtype == "float32" else ())]
    if step not in names:
        raise ProblemError(f"no step called {step!r} computes in {dtype}: use one of {', '.join(names)}")


def bind(
    step: str, shape: Shape, x: Any, w: Any, offsets: Any, y: Any, host: HostCounts, **options: Any
) -> tuple[Part, ...]:
    """Prepare y = x @ w.T, expert by expert, for arrays that exist.

    Args:
        step: one of the table's.
        shape: the extents; there is at least one row.
        x: device array [num_rows, K], sorted by expert.
        w: device array [num_experts, N, K].
        offsets: int32 device array [num_experts + 1], read by every launch anew.
        y: device array [num_rows, N]; rows that no token owns may be overwritten.
        host: the counts on the host, for steps that need them there.
        options: for `hopper` its epilogue, for `routed` source and num_slots.

    Returns:
        What to launch, in order.

    Raises:
        ProblemError: the step does not take this dtype, N or K.
    """
    on_gpu = device.choose().is_gpu
    if step == "hopper":
        # why two consumers: an epilogue may want all 128 bytes of a box's row
        in_simulator = replace(hopper.SIM_CONFIG, BN=hopper.CONFIG.BN)
        config = hopper.choose_config(shape.problem) if on_gpu else in_simulator
        config.validate(shape.problem)
        gemm = hopper.bind(shape.problem, config, x, w, offsets, y, **options)
        return (gemm,) if gemm else ()
    if step == "decode":
        return _decode(shape, x, w, offsets, y)
    if step == "routed":
        tile = tiled.CONFIG if on_gpu else tiled.SIM_CONFIG
        tile.validate(shape.problem)
        return (routed.bind(tiled.fit_loads(tile, shape.problem, x, w), x, w, offsets, y, **options),)
    if step == "concatenated":
        return (_concatenated(shape, x, w, offsets, y),)
    if step == "masked":
        return _masked(shape, x, w, offsets, y)
    return (HostPlanned(step, shape, lambda total: Inputs(x[:total], w), y, host),)


def bind_quantized(
    step: str, shape: Shape, x: Quantized, w: Quantized, offsets: Any, y: Any, host: HostCounts
) -> tuple[Part, ...]:
    """`bind` in FP8: x in blocks of 1 x 128, w in blocks of 128 x 128, y bfloat16; all on the device."""
    if step == "decode":
        return _decode(shape, x.values, w.values, offsets, y, (x.scales, w.scales))
    if step == "hopper_fp8":
        on_gpu = device.choose().is_gpu
        config = hopper_fp8.choose_config(shape.problem) if on_gpu else hopper_fp8.SIM_CONFIG
        config.validate(shape.problem)
        return tuple(hopper_fp8.bind(shape.problem, config, x, w, offsets, y).values())

    def inputs_of(total: int) -> QuantizedInputs:
        return QuantizedInputs(Quantized(x.values[:total], x.scales[:total]), w)

    return (HostPlanned(step, shape, inputs_of, y, host),)


def _decode(shape: Shape, x: Any, w: Any, offsets: Any, y: Any, scales: Any = None) -> tuple[Part, ...]:
    chosen = device.choose()
    on_gpu = decode.choose_config(shape.problem, chosen.shared_bytes_per_block)
    config = on_gpu if chosen.is_gpu else replace(decode.SIM_CONFIG, dtype=shape.dtype)
    config.validate(shape.problem)
    gemm = decode.bind(shape.problem, config, x, w, offsets, y, scales)
    return (gemm,) if gemm else ()


def _concatenated(shape: Shape, x: Any, w: Any, offsets: Any, y: Any) -> Launch:
    """One thread for each output of every row, those that no token owns included: nobody reads them."""
    chosen = device.choose()
    config = concatenated.CONFIG if chosen.is_gpu else concatenated.SIM_CONFIG
    config.validate(shape.problem)
    grid = (ceil_div(shape.N, config.BN), ceil_div(shape.num_rows, config.BM))
    return Launch(concatenated.make_kernel(config), grid, (config.BN, config.BM), (x, w, offsets, y))


@cuda.jit
def count_rows(offsets, counts):
    """Counts of rows from offsets, one thread for each expert."""
    group = cuda.grid(1)
    if group < counts.shape[0]:
        counts[group] = offsets[group + 1] - offsets[group]


def _masked(shape: Shape, x: Any, w: Any, offsets: Any, y: Any) -> tuple[Part, ...]:
    """Count, place the rows in slabs, multiply, and fetch the rows back: all with counts on the device."""
    config = masked.CONFIG if device.choose().is_gpu else masked.SIM_CONFIG
    config.validate(shape.problem)
    config = tiled.fit_loads(config, shape.problem, x, w)
    groups, most = shape.num_experts, shape.most_tokens
    # why NaN: what lies below an expert's rows must reach no result.
    x_slabs = cuda.to_device(np.full((groups, most, shape.K), np.nan, np.float32))
    y_slabs = cuda.device_array((groups, most, shape.N), np.float32)
    counts = cuda.to_device(np.zeros(groups, np.int32))
    zeros = [cuda.to_device(np.zeros(1, np.int32)) for _ in range(3)]
    arguments = (x_slabs, w, counts, *zeros, y_slabs)
    kernel = masked.make_kernel(config)
    most_tiles = groups * ceil_div(most, config.BM) * ceil_div(shape.N, config.BN)
    num_blocks = min(num_resident_blocks(kernel, config.num_threads, arguments), most_tiles)
    copies = padded.Config(BM=1, BN=config.num_threads)
    return (
        Launch(count_rows, ceil_div(groups, 128), 128, (offsets, counts)),
        padded.copy_launch(masked.place_rows, copies, shape.K, x_slabs, (x, offsets, x_slabs)),
        Launch(kernel, num_blocks, config.num_threads, arguments),
        padded.copy_launch(padded.unpack_rows, copies, shape.N, y_slabs, (y_slabs, offsets, y)),
    )
