"""The public function: the rule that picks a step, and arrays of other libraries."""

import ctypes
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from numba import cuda

import gemm_lessons
from gemm_lessons import device, interchange
from gemm_lessons.compare import (
    NUM_GUARD_ROWS,
    WGMMA_E4M3_BITS,
    check_output,
    poisoned,
    tolerance,
)
from gemm_lessons.grouped_gemm import choose_step, prepare
from gemm_lessons.launch import to_device
from gemm_lessons.problem import DTYPES, GroupedProblem, ProblemError
from gemm_lessons.quantize import quantize_inputs, turn_scales
from gemm_lessons.reference import grouped_gemm_rows

ON_GPU = device.choose().is_gpu
pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both
COUNTS, N, K = (5, 0, 20), 40, 24


def inputs_of(dtype, counts=COUNTS):
    problem = GroupedProblem(counts, N, K, dtype)
    return problem, problem.inputs(1)


def wanted_of(problem, inputs):
    rows = np.arange(problem.total_tokens)
    want, spread = grouped_gemm_rows(inputs, problem.offsets, rows)
    return want, tolerance(want, spread, problem.K, problem.dtype)


def assert_right(problem, inputs, got):
    want, allowed = wanted_of(problem, inputs)
    error = np.abs(np.asarray(got).astype(np.float64) - want)
    assert (error <= allowed).all()


def on_host(array):
    bits = array.view(np.dtype(f"u{array.dtype.itemsize}"))
    return (bits if isinstance(bits, np.ndarray) else bits.copy_to_host()).view(array.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_right_in_every_dtype(dtype):
    problem, inputs = inputs_of(dtype)
    x, w = to_device(inputs.x), to_device(inputs.w)
    out = gemm_lessons.grouped_gemm(x, w, to_device(problem.offsets))
    assert out.shape == (problem.total_tokens, N)
    assert_right(problem, inputs, on_host(out))


def scaled_inputs_of(problem, *, whole_rows=False):
    return quantize_inputs(replace(problem, dtype="float32").inputs(3), whole_rows=whole_rows)


def on_device(quantized):
    return to_device(quantized.values), to_device(quantized.scales)


def assert_scaled_right(problem, inputs, got):
    guards = poisoned(NUM_GUARD_ROWS, problem.N, DTYPES["bfloat16"])
    check_output(
        np.concatenate([guards, got, guards]), problem, inputs, accumulator_bits=WGMMA_E4M3_BITS
    ).raise_if_wrong("grouped_gemm")


@pytest.mark.parametrize(
    ("counts", "K", "whole_rows", "step"),
    [
        ((5, 0, 60), 144, False, "hopper_fp8"),
        (COUNTS, 144, True, "hopper_fp8"),
        ((0, 12), 144, False, "decode"),
        (COUNTS, 136, False, "tiled_fp8"),
        (COUNTS, 136, True, "tiled_fp8"),
    ],
)
def test_fp8_with_scales(counts, K, whole_rows, step):
    problem = GroupedProblem(counts, N, K, "float8_e4m3fn")
    inputs = scaled_inputs_of(problem, whole_rows=whole_rows)
    (x, x_scales), (w, w_scales) = map(on_device, inputs)
    call = prepare(x, w, to_device(problem.offsets), scales=(x_scales, w_scales))
    if device.choose().compute_capability[0] == 9:
        assert call.choice.step == step
    assert_scaled_right(problem, inputs, on_host(call()))


def test_fp8_with_turned_scales_is_one_launch_and_the_same():
    problem = GroupedProblem((5, 0, 62), N, 144, "float8_e4m3fn")
    inputs = scaled_inputs_of(problem)
    (x, x_scales), (w, w_scales) = map(on_device, inputs)
    offsets, turned = to_device(problem.offsets), to_device(turn_scales(inputs.x.scales))
    got = [
        on_host(prepare(x, w, offsets, scales=scales)()).view(np.uint16)
        for scales in ((x_scales, w_scales), (x_scales, w_scales, turned))
    ]
    np.testing.assert_array_equal(*got)
    with pytest.raises(ProblemError, match=r"turned x_scales are float32 \(67, 2\): use float32 \(2, 68\)"):
        prepare(x, w, offsets, scales=(x_scales, w_scales, x_scales))


def test_fp8_takes_bits_and_scales_of_whole_rows_without_their_last_axis():
    problem = GroupedProblem(COUNTS, N, 48, "float8_e4m3fn")
    inputs = scaled_inputs_of(problem, whole_rows=True)
    x, w = (to_device(quantized.values) for quantized in inputs)
    flat = to_device(inputs.x.scales[:, 0].copy()), to_device(inputs.w.scales[:, :, 0].copy())
    bits = x.view(np.uint8), w.view(np.uint8)
    out = to_device(np.zeros((problem.total_tokens, N), DTYPES["bfloat16"]))
    got = gemm_lessons.grouped_gemm(*bits, problem.offsets, out, scales=flat, out_dtype="bfloat16")
    assert got is out
    assert_scaled_right(problem, inputs, on_host(got))


def test_fp8_refuses_with_one_sentence():
    problem = GroupedProblem(COUNTS, N, 144, "float8_e4m3fn")
    (x, x_scales), (w, w_scales) = map(on_device, scaled_inputs_of(problem))
    with pytest.raises(ProblemError, match=r"need scales=\(x_scales, w_scales\)"):
        gemm_lessons.grouped_gemm(x, w, problem.offsets)
    with pytest.raises(ProblemError, match=r"\(25, 2\) and \(3, 1, 2\) by blocks, or \(25, 1\) and"):
        gemm_lessons.grouped_gemm(x, w, problem.offsets, scales=(x_scales, x_scales))
    with pytest.raises(ProblemError, match="outputs of these inputs are bfloat16, not float32"):
        gemm_lessons.grouped_gemm(x, w, problem.offsets, scales=(x_scales, w_scales), out_dtype="float32")


@pytest.mark.skipif(ON_GPU, reason="NumPy arrays stand for device arrays in the simulator only")
def test_numpy_arrays_in_the_simulator():
    problem, inputs = inputs_of("bfloat16")
    out = np.full((problem.total_tokens, N), np.nan, DTYPES["bfloat16"])
    assert gemm_lessons.grouped_gemm(inputs.x, inputs.w, list(problem.offsets), out) is out
    assert_right(problem, inputs, out)


@pytest.mark.parametrize(
    ("dtype", "N", "K", "capability", "step", "reason"),
    [
        ("bfloat16", 64, 64, (9, 0), "hopper", "TMA and wgmma"),
        ("bfloat16", 64, 64, (8, 0), "tensor_core", "wgmma exists on compute capability 9.0 only"),
        ("bfloat16", 64, 64, (10, 0), "tensor_core", "and this is 10.0"),
        ("bfloat16", 62, 64, (9, 0), "tensor_core", "N and K in multiples of 8, and they are 62 and 64"),
        ("float16", 64, 64, (7, 5), "tensor_core", "wgmma is used for bfloat16 only"),
        ("float32", 63, 65, (7, 5), "tiled", "losing digits"),
        ("float8_e4m3fn", 64, 64, (9, 0), "hopper_fp8", "TMA and wgmma"),
        ("float8_e4m3fn", 64, 64, (12, 0), "tiled_fp8", "and this is 12.0"),
        ("float8_e4m3fn", 64, 72, (9, 0), "tiled_fp8", "K of 16, and they are 64 and 72"),
    ],
)
def test_the_rule_says_why(dtype, N, K, capability, step, reason):
    choice = choose_step(dtype, N, K, capability)
    assert choice.step == step
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("dtype", "capability", "message"),
    [("bfloat16", (7, 5), "use float16"), ("int32", (9, 0), "no step computes in int32: use float32")],
)
def test_what_no_step_can_do_is_refused(dtype, capability, message):
    with pytest.raises(ProblemError, match=message):
        choose_step(dtype, 64, 64, capability)


@pytest.mark.parametrize(
    ("counts", "step"), [((5, 0, 46), "hopper"), pytest.param((5, 17), "decode", marks=pytest.mark.slow)]
)
def test_prepared_once_it_reads_new_offsets(counts, step):
    problem = GroupedProblem(counts, N, K, "bfloat16")
    inputs, offsets = problem.inputs(3), to_device(problem.offsets)
    out = to_device(np.zeros((problem.total_tokens, N), DTYPES["bfloat16"]))
    call = prepare(to_device(inputs.x), to_device(inputs.w), offsets, out)
    if device.choose().compute_capability[0] == 9:
        assert (call.choice.step, call.frozen_counts) == (step, False)
    total, others = problem.total_tokens, (0,) * (len(counts) - 2)
    for new in (counts, (0, total, *others), (*others, 2, total - 2)):
        routed = GroupedProblem(new, N, K, "bfloat16")
        offsets.copy_to_device(routed.offsets)
        assert call() is out
        cuda.synchronize()
        assert_right(routed, inputs, on_host(out))


@pytest.mark.parametrize(
    ("dtype", "K", "capability", "tokens", "step"),
    [
        ("bfloat16", 64, (9, 0), 16, "decode"),
        ("bfloat16", 64, (9, 0), 16.1, "hopper"),
        ("bfloat16", 64, (8, 0), 16, "decode"),
        ("bfloat16", 64, (8, 0), 16.1, "tensor_core"),
        ("float16", 64, (9, 0), 16, "decode"),
        ("float8_e4m3fn", 64, (9, 0), 16, "decode"),
        ("float8_e4m3fn", 64, (9, 0), 16.1, "hopper_fp8"),
        ("float8_e4m3fn", 64, (8, 9), 16, "decode"),
        ("bfloat16", 64, (8, 0), 3.75, "decode"),
        ("bfloat16", 60, (8, 0), 3.75, "tensor_core"),
        ("float16", 64, (8, 6), 1, "decode"),
        ("float16", 64, (7, 5), 1, "tensor_core"),
        ("float32", 64, (9, 0), 1, "tiled"),
    ],
)
def test_few_tokens_are_decoded(dtype, K, capability, tokens, step):
    choice = choose_step(dtype, 64, K, capability, tokens, tiles_per_sm=1 / 3)
    assert choice.step == step
    assert step != "decode" or "tokens an expert" in choice.reason


@pytest.mark.parametrize(
    ("dtype", "capability", "step"),
    [
        ("bfloat16", (9, 0), "hopper"),
        ("float8_e4m3fn", (9, 0), "hopper_fp8"),
        ("float16", (9, 0), "decode"),
        ("bfloat16", (8, 0), "decode"),
        ("float8_e4m3fn", (8, 9), "decode"),
    ],
)
def test_beside_wgmma_only_few_tiles_are_decoded(dtype, capability, step):
    assert choose_step(dtype, 64, 64, capability, 1, tiles_per_sm=0.34).step == step


def test_more_tokens_are_not_decoded():
    problem, inputs = inputs_of("bfloat16", (40, 0, 12))
    call = prepare(to_device(inputs.x), to_device(inputs.w), problem.offsets)
    assert (call.choice.step, call.frozen_counts) == ("hopper", False)
    assert_right(problem, inputs, on_host(call()))


def test_no_tokens_are_no_launch():
    problem, inputs = inputs_of("bfloat16", (0, 0))
    out = gemm_lessons.grouped_gemm(to_device(inputs.x), to_device(inputs.w), [0, 0, 0])
    assert out.shape == (0, N)
    assert problem.total_tokens == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": [0, 5, 4, 25]}, r"must not fall, but offsets\[1\] is 5"),
        ({"offsets": [0, 5, 5, 24]}, "must end at the number of tokens, 25"),
        ({"offsets": [0, 5, 25]}, r"must be int32 \[4\]"),
        ({"offsets": [0.0, 5, 5, 25]}, "offsets must be integers"),
        ({"scales": (1, 2)}, "scales belong to float8_e4m3fn inputs, and x is bfloat16"),
        ({"out_dtype": "float32"}, "outputs of these inputs are bfloat16, not float32"),
    ],
    ids=lambda value: "",
)
def test_refuses_with_one_sentence(change, message):
    problem, inputs = inputs_of("bfloat16")
    arguments = {"offsets": problem.offsets} | change
    with pytest.raises(ProblemError, match=message):
        gemm_lessons.grouped_gemm(to_device(inputs.x), to_device(inputs.w), **arguments)


def test_refuses_arrays_that_do_not_match():
    problem, inputs = inputs_of("bfloat16")
    x, w = to_device(inputs.x), to_device(inputs.w)
    with pytest.raises(ProblemError, match="with the same K"):
        gemm_lessons.grouped_gemm(x, to_device(inputs.w[:, :, :8].copy()), problem.offsets)
    with pytest.raises(ProblemError, match="use one dtype for both"):
        gemm_lessons.grouped_gemm(x, to_device(inputs.w.astype(np.float16)), problem.offsets)
    with pytest.raises(ProblemError, match="out is bfloat16"):
        gemm_lessons.grouped_gemm(x, w, problem.offsets, to_device(inputs.x))
    with pytest.raises(ProblemError, match="x is int, which has neither"):
        gemm_lessons.grouped_gemm(3, w, problem.offsets)


class FakeTensor:
    """A host array that claims to be a CUDA tensor, through a DLPack capsule of its own."""

    def __init__(self, array, type_code, device_type=interchange.ON_CUDA, device_id=0):
        self.array = array
        self.shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        strides = (stride // array.itemsize for stride in array.strides)
        self.strides = (ctypes.c_int64 * array.ndim)(*strides)
        self.tensor = interchange._DLTensor(
            array.ctypes.data, device_type, device_id, array.ndim, type_code, array.itemsize * 8, 1,
            self.shape, self.strides, 0,
        )  # fmt: skip

    def __dlpack__(self, stream=None):
        assert stream == interchange.NO_SYNCHRONISATION
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int32])
def test_dlpack_is_read_without_a_copy(monkeypatch, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    code = {"f": 2, "i": 0, "V": 4, "E": 4}[np.dtype(dtype).kind]
    exposed = []

    class View:
        def __init__(self, given, sync):
            exposed.append((given.__cuda_array_interface__, sync))

        def view(self, dtype):
            return dtype

    monkeypatch.setattr(interchange.cuda, "as_cuda_array", View, raising=False)
    assert interchange._from_dlpack("x", FakeTensor(array, code)) == np.dtype(dtype)
    interface, sync = exposed[0]
    assert interface["data"] == (array.ctypes.data, False)
    assert interface["shape"] == (3, 4)
    assert sync is False


def test_dlpack_of_another_layout_or_device_is_refused():
    array = np.zeros((3, 4), np.float32)
    with pytest.raises(ProblemError, match="not contiguous"):
        interchange._from_dlpack("x", FakeTensor(array.T, 2))
    with pytest.raises(ProblemError, match="not on a CUDA device"):
        interchange._from_dlpack("x", FakeTensor(array, 2, device_type=1))
    with pytest.raises(ProblemError, match=r"x is on GPU 1, .*: move it there, or .* CUDA_VISIBLE_DEVICES=1"):
        interchange._from_dlpack("x", FakeTensor(array, 2, device_id=1))
    with pytest.raises(ProblemError, match="dtype that no step computes in"):
        interchange._from_dlpack("x", FakeTensor(array.astype(np.float64), 2))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_torch_tensors_on_torchs_stream(dtype):
    torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")
    counts = (300, 0, 65, 129)
    x = torch.randn(sum(counts), 256, device="cuda", dtype=getattr(torch, dtype))
    w = torch.randn(len(counts), 136, 256, device="cuda", dtype=getattr(torch, dtype)).requires_grad_()
    offsets = torch.tensor(np.cumsum((0, *counts)), device="cuda", dtype=torch.int32)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        out = gemm_lessons.grouped_gemm(x, w, offsets)
    stream.synchronize()
    assert out.dtype == x.dtype
    for g, (first, last) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        want = x[first:last].double() @ w[g].double().T
        torch.testing.assert_close(out[first:last].double(), want, rtol=2e-2, atol=5e-2)


@pytest.mark.gpu
def test_a_prepared_call_can_be_captured_by_torch():
    torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")
    x = torch.randn(300, 256, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(3, 128, 256, device="cuda", dtype=torch.bfloat16)
    offsets = torch.tensor([0, 100, 100, 300], device="cuda", dtype=torch.int32)
    call = prepare(x, w, offsets, validate=False)
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    offsets.copy_(torch.tensor([0, 7, 290, 300], dtype=torch.int32))
    call.out.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    want = torch.cat([x[:7] @ w[0].T, x[7:290] @ w[1].T, x[290:] @ w[2].T])
    torch.testing.assert_close(call.out, want, rtol=2e-2, atol=5e-2)
