"""The public function: pick a step by device, dtype and shape, and run it on arrays of any library.

    y = gemm_lessons.grouped_gemm(x, w, offsets)            y[o[g]:o[g+1]] = x[o[g]:o[g+1]] @ w[g].T

    prepared = prepare(x, w, offsets, out=y)                checks, tensor maps and compilation, once
    prepared()                                              a launch and no more, graph-capturable

    y = gemm_lessons.grouped_gemm(x, w, offsets, scales=(x_scales, w_scales))        FP8 in, bfloat16 out

| dtype              | GPU                                   | step          |
|--------------------|---------------------------------------|---------------|
| bfloat16, float16  | 8.0 and newer, K % 8, N % 2, and      | `decode`      |
|                    | up to 16 tokens an expert on average  |               |
|                    | (where `hopper` fits, too, only if it |               |
|                    | had tiles for no more than a third of |               |
|                    | the SMs)                              |               |
| bfloat16           | compute capability 9.0, N and K % 8   | `hopper`      |
| bfloat16           | 8.0 and newer                         | `tensor_core` |
| float16            | 7.5 and newer                         | `tensor_core` |
| float32            | any                                   | `tiled`       |
| float8_e4m3fn      | 8.9 and newer, K % 16, N % 2, scales  | `decode`      |
|                    | by blocks, up to 16 tokens, as above  |               |
| float8_e4m3fn      | compute capability 9.0, K % 16, N % 8 | `hopper_fp8`  |
| float8_e4m3fn      | any                                   | `tiled_fp8`   |

The first line that fits counts.  The average does not change with the routing; beyond `decode`, it decides
the tile, not the step: see `steps.hopper.choose_config`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import output_dtype
from gemm_lessons.interchange import as_device_array, caller_stream, empty_like_family
from gemm_lessons.launch import Launch, to_device
from gemm_lessons.problem import DTYPES, GroupedProblem, ProblemError, check_offsets
from gemm_lessons.quantize import BLOCK, ROW_BLOCK, WEIGHT_BLOCK, Quantized, QuantizedInputs, check_turned
from gemm_lessons.schedule import ceil_div, count_tiles
from gemm_lessons.steps import decode, hopper, hopper_fp8, tensor_core, tiled, tiled_fp8

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

# Tokens of an expert, on average, up to which `decode` beats the steps without wgmma.  Those with it read
# weights as fast, unless most SMs have no tile, where sums cut over K win (docs/decode_log.md).
DECODE_TOKENS, DECODE_TILES_PER_SM = 16, 1 / 3
# What `decode` takes: what K must be a multiple of, and the oldest compute capability.
DECODED = {"float16": (8, (8, 0)), "bfloat16": (8, (8, 0)), "float8_e4m3fn": (16, (8, 9))}
READ_OFFSETS = (
    "hopper",
    "hopper_fp8",
    "decode",
)  # steps that read how tokens are routed anew at every launch


@dataclass(frozen=True)
class Choice:
    """A step and why it was picked, one sentence."""

    step: str
    reason: str


def choose_step(
    dtype: str,
    N: int,
    K: int,
    compute_capability: tuple[int, int],
    tokens: float = math.inf,
    tiles_per_sm: float = math.inf,
    *,
    whole_rows: bool = False,
) -> Choice:
    """Pick a step by the rule in the module's docstring.

    Args:
        dtype: of x and w.
        N: output features.
        K: input features.
        compute_capability: (major, minor) of the GPU.
        tokens: of an expert, on average.
        tiles_per_sm: tiles of 128 features that all experts' weights have, over the GPU's SMs.
        whole_rows: of FP8 inputs, that each row has one scale, instead of each block.

    Raises:
        ProblemError: no step computes in this dtype on this device.
    """
    generation = "{}.{}".format(*compute_capability)
    if dtype == "float32":
        return Choice("tiled", "float32 has no tensor cores without losing digits")
    beside_wgmma = dtype != "float16" and compute_capability[0] == 9 and N % 8 == 0
    sms_without_tiles = tiles_per_sm <= DECODE_TILES_PER_SM
    few = tokens <= DECODE_TOKENS and (sms_without_tiles or not beside_wgmma)
    if dtype in DECODED and few and not whole_rows:
        pieces, oldest = DECODED[dtype]
        if compute_capability >= oldest and K % pieces == 0 and N % 2 == 0:
            return Choice("decode", f"{tokens:.3g} tokens an expert: what counts is reading the weights")
    if dtype == "float16":
        return Choice("tensor_core", "float16: wgmma is used for bfloat16 only")
    if dtype == "float8_e4m3fn":
        if compute_capability[0] != 9:
            return Choice(
                "tiled_fp8", f"wgmma exists on compute capability 9.0 only, and this is {generation}"
            )
        if N % 8 or K % 16:
            return Choice("tiled_fp8", f"TMA needs N in multiples of 8, K of 16, and they are {N} and {K}")
        return Choice("hopper_fp8", "FP8 on Hopper: TMA and wgmma")
    if dtype != "bfloat16":
        raise ProblemError(f"no step computes in {dtype}: use {', '.join(DTYPES)}")
    if compute_capability < (8, 0):
        raise ProblemError(f"compute capability {generation} knows no bfloat16: use float16")
    if compute_capability[0] != 9:
        return Choice("tensor_core", f"wgmma exists on compute capability 9.0 only, and this is {generation}")
    if N % 8 or K % 8:
        return Choice("tensor_core", f"TMA needs N and K in multiples of 8, and they are {N} and {K}")
    return Choice("hopper", "bfloat16 on Hopper: TMA and wgmma")


@dataclass(frozen=True)
class PreparedCall:
    """A grouped GEMM on given arrays: call it to enqueue it on a stream.

    Attributes:
        out: the output, in the caller's library.
        choice: the step that runs, and why.
        frozen_counts: the step took the counts when it was prepared; if False, every launch reads
            offsets anew, so that a replayed graph may bring other counts.
    """

    out: Any
    choice: Choice
    frozen_counts: bool
    _launches: tuple[Launch, ...]
    _finish: Callable[[], None]
    _arrays: tuple[Any, ...]
    _views: tuple[Any, ...]  # why kept: tensor maps hold addresses only

    def __call__(self, stream: Any = None) -> Any:
        """Enqueue it on a stream, the caller's current one if none is given; returns `out`."""
        if self._launches:
            on_stream = caller_stream(stream, *self._arrays)
            for launch in self._launches:
                launch(on_stream)
            self._finish()
        return self.out


def prepare(
    x: Any,
    w: Any,
    offsets: Any,
    out: Any = None,
    *,
    scales: Any = None,
    stream: Any = None,
    validate: bool = True,
) -> PreparedCall:
    """Check everything, pick a step, compile it and encode its tensor maps.

    Args:
        x: tokens [total_tokens, K] of all experts, sorted by expert; any library's device array.
        w: weights [num_groups, N, K], the same dtype.
        offsets: int32 [num_groups + 1] on the device: where each expert's rows begin.  A host array
            or a list is copied there.
        out: [total_tokens, N] of x's dtype, or None to allocate it in x's library; bfloat16 for FP8.
        scales: (x_scales, w_scales) for FP8 inputs, see `grouped_gemm`.
        stream: where offsets become ready, if they must be read now.
        validate: check the values of offsets, which waits for the stream if they are on the device.

    Raises:
        ProblemError: shapes, dtypes or offsets do not match, or no step takes them.
        LaunchError: the device has not enough shared memory for the step.
    """
    x_view, w_view = as_device_array("x", x), as_device_array("w", w)
    if x_view.ndim != 2 or w_view.ndim != 3 or x_view.shape[1] != w_view.shape[2]:
        raise ProblemError(
            "x must be [total_tokens, K] and w [num_groups, N, K] with the same K,"
            f" got {tuple(x_view.shape)} and {tuple(w_view.shape)}"
        )
    if x_view.dtype != w_view.dtype:
        raise ProblemError(f"x is {x_view.dtype} and w is {w_view.dtype}: use one dtype for both")
    (total_tokens, K), (num_groups, N, _) = x_view.shape, w_view.shape
    dtype = next((name for name, known in DTYPES.items() if known == x_view.dtype), str(x_view.dtype))
    quantized = None
    if scales is not None or dtype == "uint8":
        quantized = _with_scales(x_view, w_view, scales)
        dtype = "float8_e4m3fn"
    chosen = device.choose()
    whole_rows = quantized is not None and quantized.w.block != WEIGHT_BLOCK
    tokens = total_tokens / max(num_groups, 1)
    tiles_per_sm = num_groups * ceil_div(N, hopper.CONFIG.BN) / chosen.num_sms
    choice = choose_step(dtype, N, K, chosen.compute_capability, tokens, tiles_per_sm, whole_rows=whole_rows)
    offsets_view = _offsets_on_device(offsets, num_groups)
    frozen_counts = choice.step not in READ_OFFSETS
    counts = (total_tokens,) + (0,) * (num_groups - 1)  # why these: any that add up, as nobody looks at them
    if validate or frozen_counts:
        on_stream = caller_stream(stream, x, offsets)
        values = offsets_view.copy_to_host(stream=on_stream)
        if on_stream:
            on_stream.synchronize()
        check_offsets(values, total_tokens)
        counts = tuple(int(count) for count in np.diff(values))
    problem = GroupedProblem(counts, N, K, dtype)
    y_dtype = output_dtype(dtype)
    if out is None:
        out = empty_like_family(x, (total_tokens, N), y_dtype)
    y = as_device_array("out", out)
    if tuple(y.shape) != (total_tokens, N) or y.dtype != y_dtype:
        raise ProblemError(
            f"out is {y.dtype} {tuple(y.shape)}, and this problem needs {y_dtype} {(total_tokens, N)}"
        )
    if quantized:
        launches = _bind_quantized(choice.step, problem, quantized, offsets_view, y)
    else:
        launches = (_bind(choice.step, problem, x_view, w_view, offsets_view, y),)
    cuda.synchronize()  # why: small uploads return before they have landed, and other streams do not wait
    arrays, views = (x, w, out, offsets), (x_view, w_view, quantized, offsets_view, y)
    wanted = tuple(launch for launch in launches if launch)
    return PreparedCall(out, choice, frozen_counts, wanted, _copy_back(y, out), arrays, views)


def grouped_gemm(
    x: Any,
    w: Any,
    offsets: Any,
    out: Any = None,
    *,
    scales: Any = None,
    out_dtype: Any = None,
    stream: Any = None,
    validate: bool = True,
) -> Any:
    """Multiply every expert's tokens by its own weights: y[o[g]:o[g+1]] = x[o[g]:o[g+1]] @ w[g].T.

    Takes and returns arrays of any library that has DLPack or `__cuda_array_interface__` (torch, CuPy,
    Numba), without copying them, on the caller's stream.  Every call checks, allocates and encodes: in a
    loop, or under a CUDA graph, use `prepare`.

    Args:
        x: tokens [total_tokens, K], sorted by expert.
        w: weights [num_groups, N, K], as nn.Linear stores them, of x's dtype.
        offsets: int32 [num_groups + 1]: where each expert's rows begin.
        out: [total_tokens, N] of x's dtype, or None to allocate it in x's library.
        scales: (x_scales, w_scales), float32, for float8_e4m3fn inputs (or uint8 of the same bits), whose
            values they multiply.  By blocks, [total_tokens, ceil(K / 128)] and
            [num_groups, ceil(N / 128), ceil(K / 128)], as DeepSeek-V3 and `quantize_inputs` make them; or
            by whole rows, [total_tokens] and [num_groups, N], as `torch._scaled_grouped_mm` takes them.
            A third array may hold x_scales once more as `quantize.turn_scales` lays them out: without it,
            `hopper_fp8` turns them in every call, with a small launch of its own.
        out_dtype: None, or what out has: x's dtype, or bfloat16 for FP8.
        stream: of Numba, torch, CuPy or a number; None is the current stream of x's library.
        validate: check the values of offsets.  That waits for them; without it, wrong offsets give wrong
            outputs, but nothing outside the arrays is touched.

    Returns:
        out.

    Raises:
        ProblemError: shapes, dtypes or offsets do not match, or no step takes them.
    """
    if out_dtype is not None:
        wanted = "bfloat16" if scales is not None else _dtype_name(x.dtype)
        if _dtype_name(out_dtype) != wanted:
            raise ProblemError(f"outputs of these inputs are {wanted}, not {_dtype_name(out_dtype)}")
    return prepare(x, w, offsets, out, scales=scales, stream=stream, validate=validate)(stream)


def _dtype_name(dtype: Any) -> str:
    """The same name for numpy.dtype("float16"), torch.float16 and "float16"."""
    return getattr(dtype, "name", str(dtype)).rsplit(".", 1)[-1]


def _with_scales(x: Any, w: Any, scales: Any) -> QuantizedInputs:
    """Check the scales of FP8 inputs, and tell the two recipes apart by their shapes."""
    if x.dtype != np.uint8:
        raise ProblemError(f"scales belong to float8_e4m3fn inputs, and x is {x.dtype}")
    if not isinstance(scales, list | tuple) or len(scales) not in (2, 3):
        raise ProblemError(
            "float8_e4m3fn inputs need scales=(x_scales, w_scales), or x_scales turned as well"
        )
    labels = ("x_scales", "w_scales", "the turned x_scales")
    x_scales, w_scales, *more = (
        as_device_array(label, array) for label, array in zip(labels, scales, strict=False)
    )
    turned = more[0] if more else None
    (total_tokens, K), (num_groups, N, _) = x.shape, w.shape
    blocks = (total_tokens, ceil_div(K, BLOCK)), (num_groups, ceil_div(N, BLOCK), ceil_div(K, BLOCK))
    rows = (total_tokens, 1), (num_groups, N, 1)
    found = tuple(x_scales.shape), tuple(w_scales.shape)
    if x_scales.dtype == w_scales.dtype == np.float32:
        if turned is not None:
            check_turned(turned, x_scales.shape if x_scales.ndim == 2 else rows[0])
        if found == blocks:
            x_quantized = Quantized(x, x_scales, ROW_BLOCK, turned)
            return QuantizedInputs(x_quantized, Quantized(w, w_scales, WEIGHT_BLOCK))
        if found in (rows, ((total_tokens,), (num_groups, N))):
            x_scales, w_scales = x_scales.reshape(*rows[0]), w_scales.reshape(*rows[1])
            x_quantized = Quantized(x, x_scales, (1, K), turned)
            return QuantizedInputs(x_quantized, Quantized(w, w_scales, (1, K)))
    raise ProblemError(
        f"scales are {x_scales.dtype} {found[0]} and {w_scales.dtype} {found[1]}: use float32,"
        f" {blocks[0]} and {blocks[1]} by blocks, or {rows[0]} and {rows[1]} by whole rows"
    )


def _offsets_on_device(offsets: Any, num_groups: int) -> Any:
    if isinstance(offsets, list | tuple | np.ndarray):
        values = np.asarray(offsets)
        if not np.issubdtype(values.dtype, np.integer):
            raise ProblemError(f"offsets must be integers, got {values.dtype}")
        view = to_device(values.astype(np.int32))
    else:
        view = as_device_array("offsets", offsets)
    if view.dtype != np.int32 or tuple(view.shape) != (num_groups + 1,):
        raise ProblemError(
            f"offsets must be int32 [{num_groups + 1}], num_groups + 1, got {view.dtype} {tuple(view.shape)}"
        )
    return view


def _bind(step: str, problem: GroupedProblem, x: Any, w: Any, offsets: Any, y: Any) -> Launch | None:
    """The step's launch on these arrays."""
    chosen = device.choose()
    if step == "hopper":
        config = hopper.choose_config(problem) if chosen.is_gpu else hopper.SIM_CONFIG
        config.validate(problem)
        return hopper.bind(problem, config, x, w, offsets, y)
    if step == "decode":
        shares = decode.SIM_CONFIG
        if chosen.is_gpu:
            shares = decode.choose_config(problem, chosen.shared_bytes_per_block)
        shares.validate(problem)
        return decode.bind(problem, replace(shares, dtype=problem.dtype), x, w, offsets, y)
    if step == "tensor_core":
        warps = tensor_core.SIM_CONFIG
        if chosen.is_gpu:
            warps = tensor_core.choose_config(problem, chosen.compute_capability)
        warps.validate(problem)
        return tensor_core.bind(problem, replace(warps, dtype=problem.dtype), x, w, offsets, y)
    small = tiled.fit_loads(tiled.CONFIG if chosen.is_gpu else tiled.SIM_CONFIG, problem, x, w)
    tile_offsets = count_tiles(problem, small.BM, small.BN)
    num_tiles = int(tile_offsets[-1])
    if not num_tiles:
        return None
    return Launch(
        tiled.make_kernel(small), num_tiles, small.num_threads, (x, w, offsets, to_device(tile_offsets), y)
    )


def _bind_quantized(
    step: str, problem: GroupedProblem, inputs: QuantizedInputs, offsets: Any, y: Any
) -> tuple[Launch | None, ...]:
    """The FP8 step's launches on these arrays."""
    chosen = device.choose()
    on_gpu = chosen.is_gpu
    if step == "decode":
        x, w = inputs
        shares = decode.choose_config(problem, chosen.shared_bytes_per_block) if on_gpu else decode.SIM_CONFIG
        shares = replace(shares, dtype=problem.dtype)
        shares.validate(problem)
        return (decode.bind(problem, shares, x.values, w.values, offsets, y, (x.scales, w.scales)),)
    if step == "hopper_fp8":
        config = hopper_fp8.choose_config(problem) if on_gpu else hopper_fp8.SIM_CONFIG
        config.validate(problem)
        return tuple(hopper_fp8.bind(problem, config, *inputs, offsets, y).values())
    plain = tiled_fp8.choose_config() if on_gpu else tiled_fp8.SIM_CONFIG
    plain.validate(problem)
    return (tiled_fp8.bind(problem, plain, *inputs, offsets, y),)


def _copy_back(y: Any, out: Any) -> Callable[[], None]:
    """In the simulator, an output in NumPy's memory is a copy's copy; on a GPU there is nothing to do."""

    def finish() -> None:
        if isinstance(out, np.ndarray):
            out[...] = y.copy_to_host()

    return finish


class _CallableModule(ModuleType):
    """Makes `gemm_lessons.grouped_gemm(x, w, offsets)` work: function and module share the name."""

    __call__ = staticmethod(grouped_gemm)


sys.modules[__name__].__class__ = _CallableModule
