"""How fast is quantising, next to a copy of as many bytes?

    python -m gemm_lessons.measure.quantizing           on a GPU: writes measure/studies/quantize-DEVICE.json

Each kernel is timed by the protocol of `timing`, as is a device-to-device copy that reads and writes as many
bytes together.  The result is then compared with NumPy, bit for bit.  So is what `hopper_fp8` launches before
its product where scales of x do not come turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import to_device
from gemm_lessons.measure import study
from gemm_lessons.measure.results import label_of
from gemm_lessons.measure.timing import CudaGpu, Rules, time_calls
from gemm_lessons.problem import DTYPES
from gemm_lessons.quantize import ROW_BLOCK, WEIGHT_BLOCK, quantize, turn_scales
from gemm_lessons.quantize_kernels import prepare, prepare_turn
from gemm_lessons.schedule import ceil_div

COMMAND = "python -m gemm_lessons.measure.quantizing"

SHAPES = (  # name, shape, block
    ("tokens of S", (1060, 2048), ROW_BLOCK),
    ("tokens of S-x16", (16960, 2048), ROW_BLOCK),
    ("8192 tokens, K = 7168", (8192, 7168), ROW_BLOCK),
    ("32768 tokens, K = 7168", (32768, 7168), ROW_BLOCK),
    ("8192 tokens, K = 7160", (8192, 7160), ROW_BLOCK),  # the last block has 120 columns
    ("weights of S", (8, 2048, 2048), WEIGHT_BLOCK),
    ("weights of 8 experts, gate and up", (8, 4096, 7168), WEIGHT_BLOCK),
)
FAST = ("rows", "tiles")  # kernels that quantise at memory speed
MOST_COMPARED = 2**24  # elements that NumPy quantises again; of larger arrays, the first rows


@dataclass(frozen=True)
class Line:
    """One shape, timed.

    Attributes:
        name: of the shape.
        shape: of x; of its scales, where they are turned.
        dtype: of x, or of the scales.
        kernel: "rows", "tiles", "plain" or "turn".
        median_us: of one call.
        copy_us: of a copy that reads and writes as many bytes.
        bytes: that must move: x, its values and its scales; or the scales, twice.
        gb_per_s: these bytes over the time.
        percent_of_copy: speed over that of the copy; of short kernels it may be above 100.
        right: equal to NumPy, bit for bit.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kernel: str
    median_us: float
    copy_us: float
    bytes: int
    gb_per_s: float
    percent_of_copy: float
    right: bool


def measure(
    gpu: CudaGpu, name: str, shape: tuple[int, ...], block: tuple[int, int], dtype: str, kernel: str | None
) -> Line:
    """Time one kernel on one shape, and compare its result with NumPy."""
    rng = np.random.default_rng(0)
    few = max(1, min(shape[-2], MOST_COMPARED // shape[-1]) // block[0] * block[0])
    part = rng.standard_normal((few, shape[-1]), dtype=np.float32).astype(DTYPES[dtype])
    x = to_device(np.resize(part, shape))
    prepared = prepare(x, block, kernel=kernel)

    def enqueue(stream: Any) -> None:
        prepared(stream)

    timing = time_calls([enqueue], gpu, Rules())
    moved = x.dtype.itemsize * int(np.prod(shape)) + int(np.prod(shape)) + 4 * prepared.out.scales.size
    copied = time_calls([_copy(gpu, moved // 2)], gpu, Rules())
    want = quantize(part, block)
    out: Any = prepared.out
    got = out.values.view(np.uint8).copy_to_host().reshape(-1, shape[-1])[:few]
    scales = out.scales.copy_to_host().reshape(-1, want.scales.shape[-1])[: len(want.scales)]
    right = bool((got == want.values.view(np.uint8)).all() and (scales == want.scales).all())
    return Line(
        name, shape, dtype, prepared.kernel, timing.median_us, copied.median_us, moved,
        moved / timing.median_us / 1e3, 100 * copied.median_us / timing.median_us, right,
    )  # fmt: skip


def measure_turn(gpu: CudaGpu, name: str, shape: tuple[int, ...]) -> Line:
    """Time turning the scales of a matrix of this shape, and compare the result with NumPy."""
    scales = np.random.default_rng(0).random((shape[0], ceil_div(shape[1], ROW_BLOCK[1])), np.float32)
    want = turn_scales(scales)
    turned = to_device(np.full_like(want, np.nan))
    turn: Any = prepare_turn(to_device(scales), turned)
    timing = time_calls([turn], gpu, Rules())
    moved = 2 * scales.nbytes
    copied = time_calls([_copy(gpu, moved // 2)], gpu, Rules())
    right = bool((turned.copy_to_host() == want).all())
    return Line(
        name, scales.shape, "float32", "turn", timing.median_us, copied.median_us, moved,
        moved / timing.median_us / 1e3, 100 * copied.median_us / timing.median_us, right,
    )  # fmt: skip


def here_or_recorded(names: Sequence[str], dtype: str = "bfloat16") -> tuple[str, list[Line]]:
    """Some shapes, timed on this GPU; without one, as they were recorded.

    Returns:
        Where and when, for a title, and a line for each shape that there is a time for.
    """
    if device.choose().is_gpu:
        gpu = CudaGpu()
        timed = [
            measure(gpu, name, shape, block, dtype, None) for name, shape, block in SHAPES if name in names
        ]
        return f"{device.choose().name}, now", timed
    newest = study.newest("quantize")
    lines = [Line(**{**line, "shape": tuple(line["shape"])}) for line in newest["lines"]]
    kept = [one for one in lines if one.name in names and one.dtype == dtype and one.kernel in FAST]
    return f"recorded on {label_of(newest['machine'], newest['date'])}", kept


def _copy(gpu: CudaGpu, num_bytes: int) -> Any:
    """A call that copies so many bytes from one place of device memory to another."""
    from cuda.bindings import driver
    from numba import cuda

    arrays = [cuda.device_array(num_bytes, np.uint8) for _ in range(2)]
    target, source = (array.__cuda_array_interface__["data"][0] for array in arrays)

    def copy(stream: Any, keep: Any = arrays) -> None:
        gpu.ask(driver.cuMemcpyDtoDAsync, target, source, num_bytes, int(stream))

    return copy


def main() -> None:
    """Measure every shape in both dtypes and write the result down."""
    gpu = CudaGpu()
    lines = [
        measure(gpu, name, shape, block, dtype, None)
        for name, shape, block in SHAPES
        for dtype in ("bfloat16", "float32")
    ]
    name, shape, block = SHAPES[2]
    lines.append(measure(gpu, name, shape, block, "bfloat16", "plain"))
    lines += [measure_turn(gpu, name, shape) for name, shape, block in SHAPES if block == ROW_BLOCK]
    study.write("quantize", COMMAND, lines)
    for line in lines:
        speed = f"{line.median_us:8.1f} us {line.gb_per_s:7.0f} GB/s {line.percent_of_copy:5.1f} % of a copy"
        verdict = "right" if line.right else "WRONG"
        print(f"{line.name:36} {line.dtype:9} {line.kernel:6} {speed}  {verdict}")
    if not all(line.right for line in lines):
        raise SystemExit("a kernel's result differs from NumPy's")


if __name__ == "__main__":
    main()
