"""Other libraries on the same problem, timed by the same protocol and judged by the same oracle.

A peer that cannot run here says why, in one sentence; it is never left out silently.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import ceil, log2
from typing import Any

import numpy as np

from gemm_lessons.compare import (
    NUM_GUARD_ROWS,
    WGMMA_E4M3_BITS,
    Comparison,
    check_output,
    output_dtype,
    poisoned,
)
from gemm_lessons.launch import Graph, LaunchError, Prepared, Work, guarded_output, launch_parts, to_device
from gemm_lessons.measure.runs import Run
from gemm_lessons.measure.timing import Call
from gemm_lessons.problem import GroupedProblem, Inputs, pad
from gemm_lessons.quantize import BLOCK, QuantizedInputs, dequantize, quantize_inputs

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Peer:
    """Another library's way to compute a grouped GEMM.

    Attributes:
        name: for the table.
        dtypes: that it takes.
        why_not: returns the reason why it cannot run on this machine, or nothing.
        prepare: puts a problem's inputs, with scales for FP8, on the device; may raise whatever the library
            raises.
    """

    name: str
    dtypes: tuple[str, ...]
    why_not: Callable[[], str]
    prepare: Callable[[GroupedProblem, Any], Run]

    def reason_not_to_run(self, problem: GroupedProblem) -> str:
        """Why this peer cannot run this problem; empty if it can."""
        if problem.dtype not in self.dtypes:
            return f"takes {' and '.join(self.dtypes)} only"
        if not problem.total_tokens:
            return "there are no tokens"
        return self.why_not()


@cache
def why_no_torch() -> str:
    """Why torch cannot be used on this machine; empty if it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (extra: peers)"
    import torch

    if not torch.cuda.is_available():
        return "the installed torch cannot use this GPU"
    # why: TF32 keeps 10 bits of the mantissa, and would be compared with float32
    torch.backends.cuda.matmul.allow_tf32 = False
    return ""


def _tensor(array: Array) -> Any:
    """A torch tensor on the device with the bits of a NumPy array, bfloat16 included."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).cuda().view(torch.bfloat16)
    if array.dtype.name == "float8_e4m3fn":
        return torch.from_numpy(array.view(np.uint8)).cuda().view(torch.float8_e4m3fn)
    return torch.from_numpy(array).cuda()


def _array(tensor: Any, dtype: np.dtype[Any]) -> Array:
    """A NumPy array with the bits of a torch tensor."""
    import torch

    bits = tensor.contiguous().view({2: torch.int16, 4: torch.int32}[dtype.itemsize])
    array: Array = bits.cpu().numpy().view(dtype)
    return array


def torch_run(
    problem: GroupedProblem, compute: Callable[[], Any], rows: Callable[[Any], Any] = lambda y: y
) -> Run:
    """Wrap torch calls: the same stream as everybody else, and a CUDA graph if torch can capture them.

    Args:
        problem: what is computed.
        compute: enqueues the work on torch's current stream and returns the output tensor.
        rows: takes y [total_tokens, N] out of that tensor; not timed.
    """
    import torch

    latest = compute()
    captured = latest  # what a replay writes; some functions return a new tensor from every call
    torch.cuda.synchronize()

    def eager(stream: Any) -> None:
        nonlocal latest
        with torch.cuda.stream(torch.cuda.ExternalStream(int(stream))):
            latest = compute()

    def poison() -> None:
        for y in (latest, captured):
            y.fill_(float("nan"))
        torch.cuda.synchronize()

    def result() -> Array:
        torch.cuda.synchronize()
        dtype = output_dtype(problem.dtype)
        guarded = poisoned(problem.total_tokens + 2 * NUM_GUARD_ROWS, problem.N, dtype)
        guarded[NUM_GUARD_ROWS : NUM_GUARD_ROWS + problem.total_tokens] = _array(rows(latest), dtype)
        return guarded

    replay: Call = eager
    note = ""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            captured = compute()

        def replay_graph(stream: Any) -> None:
            nonlocal latest
            with torch.cuda.stream(torch.cuda.ExternalStream(int(stream))):
                graph.replay()
            latest = captured

        replay = replay_graph
    except RuntimeError as error:
        note = f"without a CUDA graph: {str(error).splitlines()[0]}"
    return Run(problem, eager, replay, poison, result, note=note)


def _padded_bmm(problem: GroupedProblem, inputs: Inputs) -> Run:
    import torch

    slabs = (problem.num_groups, problem.max_tokens, problem.K)
    x_padded, w = _tensor(pad(inputs.x, problem).reshape(slabs)), _tensor(inputs.w).transpose(1, 2)
    y_padded = torch.bmm(x_padded, w)

    def rows(y: Any) -> Any:
        return torch.cat([y[group, :count] for group, count in enumerate(problem.counts)])

    return torch_run(problem, lambda: torch.bmm(x_padded, w, out=y_padded), rows)


def _expert_loop(problem: GroupedProblem, inputs: Inputs) -> Run:
    import torch

    x, w = _tensor(inputs.x), _tensor(inputs.w)
    y = torch.empty(problem.total_tokens, problem.N, dtype=x.dtype, device="cuda")
    experts = [
        (x[start:stop], w[group].t(), y[start:stop])
        for group, (start, stop) in enumerate(
            zip(problem.offsets[:-1].tolist(), problem.offsets[1:].tolist(), strict=True)
        )
        if stop > start
    ]

    def compute() -> Any:
        for rows, weights, out in experts:
            torch.mm(rows, weights, out=out)
        return y

    return torch_run(problem, compute)


def _grouped_mm(problem: GroupedProblem, inputs: Inputs) -> Run:
    import torch

    x, w = _tensor(inputs.x), _tensor(inputs.w).transpose(1, 2)
    ends = torch.from_numpy(problem.offsets[1:].copy()).cuda()
    return torch_run(problem, lambda: torch._grouped_mm(x, w, offs=ends))


def scaled_by_rows(inputs: QuantizedInputs) -> QuantizedInputs:
    """The numbers that FP8 inputs stand for, with one scale for each row of x and of w."""
    x, w = (dequantize(quantized).astype(np.float32) for quantized in inputs)
    return quantize_inputs(Inputs(x, w), whole_rows=True)


def bits_of_long_sums(K: int) -> int:
    """`accumulator_bits` of sums that stay in the tensor core over all of K, a walk sqrt(K / 128) longer."""
    return WGMMA_E4M3_BITS - ceil(log2(max(K / BLOCK, 1)) / 2)


def _scaled_grouped_mm(problem: GroupedProblem, inputs: QuantizedInputs, *, fast: bool) -> Run:
    """The FP8 product of torch, which has scales for whole rows on this generation of GPUs.

    fast: sums stay in the tensor core; otherwise torch moves them to float32 now and then, as we do.
    """
    import torch

    rows = scaled_by_rows(inputs)
    x, w = _tensor(rows.x.values), _tensor(rows.w.values).transpose(1, 2)
    x_scales, w_scales = _tensor(rows.x.scales[:, 0].copy()), _tensor(rows.w.scales[:, :, 0].copy())
    ends = torch.from_numpy(problem.offsets[1:].copy()).cuda()
    options = {"offs": ends, "out_dtype": torch.bfloat16, "use_fast_accum": fast}
    run = torch_run(problem, lambda: torch._scaled_grouped_mm(x, w, x_scales, w_scales, **options))
    bits = bits_of_long_sums(problem.K) if fast else WGMMA_E4M3_BITS
    run.note = f"scales of whole rows. {run.note}".strip()

    def compare(given: Inputs | QuantizedInputs) -> Comparison:
        if not isinstance(given, QuantizedInputs):
            raise TypeError("FP8 inputs have scales")
        mine = rows if given is inputs else scaled_by_rows(given)
        return check_output(run.result(), problem, mine, accumulator_bits=bits)

    run.compare = compare
    return run


# cudaDataType_t, cublasComputeType_t and cublasOperation_t, from CUDA's library_types.h and cublas_api.h.
_CUBLAS_TYPES = {"float32": 0, "float16": 2, "bfloat16": 14}
_COMPUTE_32F = 68
_NO_TRANSPOSE, _TRANSPOSE = 0, 1


@cache
def _cublas() -> ctypes.CDLL | None:
    """The cuBLAS library of an installed wheel or toolkit, or None."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
        library.cublasGemmGroupedBatchedEx  # noqa: B018  why: AttributeError where cuBLAS is too old
    except (ImportError, RuntimeError, OSError, AttributeError):
        return None
    return library


def _why_no_cublas() -> str:
    return "" if _cublas() else "no cuBLAS 12.5 or newer was found (torch brings one; extra: peers)"


@cache
def _cublas_handle() -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    _must(_cublas().cublasCreate_v2(ctypes.byref(handle)), "create a handle")  # type: ignore[union-attr]
    return handle


def _must(status: int, action: str) -> None:
    if status:
        raise RuntimeError(f"cuBLAS could not {action}: status {status}")


def _cublas_grouped(problem: GroupedProblem, inputs: Inputs) -> Run:
    """cublasGemmGroupedBatchedEx, one group per expert that has tokens.

    cuBLAS is column-major, so y = x w.T is computed as y.T [N, tokens] = w.T.T [N, K] x.T [K, tokens]: the
    rows of our arrays are its columns.
    """
    item = output_dtype(problem.dtype).itemsize
    bits = np.dtype(f"u{item}")
    x, w = (to_device(array.view(bits)) for array in inputs)
    output, y = guarded_output(problem)
    active = [group for group, count in enumerate(problem.counts) if count]
    starts = problem.offsets[active].astype(np.uint64)

    def address(array: Any) -> int:
        return int(array.__cuda_array_interface__["data"][0])

    def ints(*values: int) -> Any:
        return (ctypes.c_int * len(values))(*values)

    def pointers(base: int, steps: Array) -> Any:
        return to_device(np.uint64(base) + steps * np.uint64(item))

    E = len(active)
    w_addresses = pointers(address(w), np.array(active, np.uint64) * np.uint64(problem.N * problem.K))
    x_addresses = pointers(address(x), starts * np.uint64(problem.K))
    y_addresses = pointers(address(y), starts * np.uint64(problem.N))
    ones, zeros = (ctypes.c_float * E)(*[1.0] * E), (ctypes.c_float * E)()
    kind = ctypes.c_int(_CUBLAS_TYPES[problem.dtype])
    n, k = ints(*[problem.N] * E), ints(*[problem.K] * E)
    arguments = (
        ints(*[_TRANSPOSE] * E), ints(*[_NO_TRANSPOSE] * E),
        n, ints(*[problem.counts[group] for group in active]), k,
        ones, ctypes.c_void_p(address(w_addresses)), kind, k,
        ctypes.c_void_p(address(x_addresses)), kind, k,
        zeros, ctypes.c_void_p(address(y_addresses)), kind, n,
        ctypes.c_int(E), ints(*[1] * E), ctypes.c_int(_COMPUTE_32F),
    )  # fmt: skip

    def compute(stream: Any) -> None:
        library, handle = _cublas(), _cublas_handle()
        pointer = ctypes.c_void_p(int(stream) if stream else 0)
        _must(library.cublasSetStream_v2(handle, pointer), "set the stream")  # type: ignore[union-attr]
        status = library.cublasGemmGroupedBatchedEx(handle, *arguments)  # type: ignore[union-attr]
        _must(status, "multiply")

    prepared = Prepared(
        problem, None, {"gemm": compute}, output, Work(1, 0, 0, problem.useful_flops),
        keep_alive=(x, w, w_addresses, x_addresses, y_addresses),
    )  # fmt: skip
    eager = partial(launch_parts, prepared)
    replay: Call = eager
    note = ""
    try:
        replay = Graph(prepared)
    except (LaunchError, RuntimeError) as error:
        note = f"without a CUDA graph: {error}"
    return Run(problem, eager, replay, prepared.poison, prepared.result, note=note)


PEERS: tuple[Peer, ...] = (
    Peer("torch.bmm padded", ("float32", "float16", "bfloat16"), why_no_torch, _padded_bmm),
    Peer("torch.mm per expert", ("float32", "float16", "bfloat16"), why_no_torch, _expert_loop),
    Peer("torch._grouped_mm", ("bfloat16",), why_no_torch, _grouped_mm),
    Peer(
        "torch._scaled_grouped_mm",
        ("float8_e4m3fn",),
        why_no_torch,
        partial(_scaled_grouped_mm, fast=False),
    ),
    Peer(
        "torch._scaled_grouped_mm, fast accumulation",
        ("float8_e4m3fn",),
        why_no_torch,
        partial(_scaled_grouped_mm, fast=True),
    ),
    Peer("cuBLAS grouped", tuple(_CUBLAS_TYPES), _why_no_cublas, _cublas_grouped),
)
