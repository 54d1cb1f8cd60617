"""SwiGLU as a kernel and in the epilogue of a product, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest

from gemm_lessons import device
from gemm_lessons.compare import is_poison, poisoned
from gemm_lessons.launch import to_device
from gemm_lessons.moe import activation, dense, swiglu_epilogue
from gemm_lessons.problem import DTYPES, GroupedProblem, ProblemError
from gemm_lessons.quantize import Quantized, quantize_rows
from gemm_lessons.steps import hopper
from gemm_lessons.steps._host import ConfigError

ON_GPU = device.choose().is_gpu
pytestmark = [pytest.mark.gpu] if ON_GPU else []  # the same tests on both


def host(array):
    return array.view(np.dtype(f"u{array.dtype.itemsize}")).copy_to_host().view(array.dtype)


def gate_up(rows, hidden, dtype, seed=0):
    """Gate and up [rows, hidden] in float64, and both as the columns of one device array."""
    values = 3 * np.random.default_rng(seed).standard_normal((2, rows, hidden))
    gate, up = values.astype(DTYPES[dtype])
    columns = activation.interleave(gate.T[None], up.T[None])[0].T
    return gate.astype(np.float64), up.astype(np.float64), to_device(np.ascontiguousarray(columns))


def allowed(gate, want, dtype):
    """Rounding of the result, and of exp: its argument is rounded before it, so large gates lose digits."""
    unit = 2.0**-8 if dtype == "bfloat16" else 2.0**-21
    return np.abs(want) * (unit + np.abs(gate) * 2.0**-23) + 2.0**-126


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "hidden"), [(1, 8), (7, 40), (5, 264)])
def test_the_kernel(dtype, weighted, rows, hidden):
    capacity = rows + 3
    gate, up, columns = gate_up(capacity, hidden, dtype)
    want = dense.silu(gate) * up
    source = weights = None
    if weighted:
        rng = np.random.default_rng(1)
        weights = rng.random((capacity, 2), np.float32)
        source = rng.permutation(2 * capacity)[:capacity].astype(np.int32)
        source[0] = -1
        want *= np.where(source < 0, 0, weights.reshape(-1)[source])[:, None]
        source, weights = to_device(source), to_device(weights)
    out = to_device(poisoned(capacity, hidden, DTYPES[dtype]))
    offsets = to_device(np.array([0, rows // 2, rows // 2, rows], np.int32))
    activation.bind(columns, offsets, out, source, weights)()
    got = host(out)
    assert is_poison(got[rows:]).all(), "rows that no expert owns were written"
    error = np.abs(got[:rows].astype(np.float64) - want[:rows])
    assert (error <= allowed(gate, want, dtype)[:rows]).all()


def test_a_width_that_no_piece_divides():
    gate, up, columns = gate_up(4, 19, "float32")
    out = to_device(poisoned(4, 19, DTYPES["float32"]))
    activation.bind(columns, to_device(np.array([0, 4], np.int32)), out)()
    want = dense.silu(gate) * up
    assert (np.abs(host(out) - want) <= allowed(gate, want, "float32")).all()


def test_the_ends_of_silu():
    gates = np.array([0, -0.0, 88, -88, 200, -200, 1e30, -1e30, np.inf, np.nan], np.float32)
    columns = activation.interleave(gates[None, :, None], np.ones((1, 10, 1), np.float32))[0].T
    out = to_device(poisoned(1, 10, DTYPES["float32"]))
    one_row = to_device(np.array([0, 1], np.int32))
    activation.bind(to_device(np.ascontiguousarray(columns)), one_row, out)()
    got = host(out)[0]
    np.testing.assert_allclose(got[:9], [0, 0, 88, 0, 200, 0, 1e30, 0, np.inf], rtol=1e-6, atol=1e-35)
    assert np.isnan(got[9])


def test_quantising_at_once_gives_the_bits_of_two_passes():
    rows, hidden = 6, 264
    *_, columns = gate_up(rows + 2, hidden, "bfloat16")
    words = host(columns).copy()
    words[1], words[2, 3], words[3, 5] = 0, np.inf, np.nan
    columns, offsets = to_device(words), to_device(np.array([0, rows], np.int32))
    plain = to_device(poisoned(rows + 2, hidden, DTYPES["bfloat16"]))
    activation.bind(columns, offsets, plain)()
    want = quantize_rows(host(plain)[:rows])
    values = to_device(np.full((rows + 2, hidden), 0x7F, np.uint8)).view(DTYPES["float8_e4m3fn"])
    out = Quantized(values, to_device(poisoned(rows + 2, 3, DTYPES["float32"])))
    activation.bind_quantizing(columns, offsets, out)()
    np.testing.assert_array_equal(host(out.scales)[:rows], want.scales)
    np.testing.assert_array_equal(host(values)[:rows].view(np.uint8), want.values.view(np.uint8))
    assert is_poison(host(out.scales)[rows:]).all()
    assert (host(values)[rows:].view(np.uint8) == 0x7F).all(), "rows that no expert owns were written"


def test_what_cannot_be_quantised_is_refused():
    out = Quantized(to_device(np.zeros((3, 16), np.uint8)), to_device(np.zeros((3, 1), np.float32)))
    with pytest.raises(ProblemError, match="it must be bfloat16"):
        activation.bind_quantizing(to_device(np.zeros((3, 32), np.float32)), None, out)
    wrong = out._replace(scales=to_device(np.zeros((3, 2), np.float32)))
    with pytest.raises(ProblemError, match=r"scales are \(3, 2\)"):
        activation.bind_quantizing(to_device(np.zeros((3, 32), DTYPES["bfloat16"])), None, wrong)


def test_gate_and_up_come_apart_again():
    for hidden in (16, 19):
        gate, up = np.random.default_rng(3).random((2, 3, hidden, 5))
        back = activation.separate(activation.interleave(gate, up))
        np.testing.assert_array_equal(back, (gate, up))


def test_no_rows_is_no_launch():
    empty = to_device(np.zeros((0, 16), np.float32))
    assert activation.bind(empty, None, to_device(np.zeros((0, 8), np.float32))) is None


@pytest.mark.parametrize(
    ("columns", "out", "message"),
    [
        (((3, 16), np.float32), ((3, 9), np.float32), r"needs float32 \(3, 18\)"),
        (((3, 16), np.float32), ((3, 8), DTYPES["bfloat16"]), "needs bfloat16"),
        (((3, 24), DTYPES["bfloat16"]), ((3, 12), DTYPES["bfloat16"]), "a multiple of 8; pad it to 16"),
        (((3, 16), np.float16), ((3, 8), np.float16), "use float32 or bfloat16"),
    ],
    ids=["extent", "dtype", "alignment", "float16"],
)
def test_refuses_with_one_sentence(columns, out, message):
    with pytest.raises(ProblemError, match=message):
        activation.bind(to_device(np.zeros(*columns)), None, to_device(np.zeros(*out)))


def test_gate_and_up_must_match():
    with pytest.raises(ProblemError, match="use equal ones"):
        activation.interleave(np.zeros((2, 8, 3)), np.zeros((2, 8, 4)))


# --- in the epilogue -----------------------------------------------------------------------------------

needs_hopper = pytest.mark.skipif(
    device.choose().compute_capability[0] != 9, reason="NOT RUN: wgmma exists on compute capability 9.0 only"
)
CONFIG = hopper.CONFIG if ON_GPU else replace(hopper.SIM_CONFIG, BN=128)
COUNTS = {
    "ragged": (CONFIG.BM + 3, 0, 5),
    "one token": (0, 1, 0),
    "many buffers": (3 * CONFIG.BM - 7, CONFIG.box + 1),
}


@needs_hopper
@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("ragged", 8),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("one token", 72), ("many buffers", 72))),
    ],
)
def test_the_epilogue(name, hidden):
    counts, K = COUNTS[name], 456 if ON_GPU else 72
    problem = GroupedProblem(counts, 2 * hidden, K, "bfloat16")
    rng = np.random.default_rng(2)
    x = rng.standard_normal((problem.total_tokens, K)).astype(DTYPES["bfloat16"])
    gate, up = rng.standard_normal((2, len(counts), hidden, K)).astype(DTYPES["bfloat16"])
    guarded = to_device(poisoned(problem.total_tokens + 16, hidden, DTYPES["bfloat16"]))
    inside = guarded[8 : problem.total_tokens + 8]
    x_there, w = to_device(x), to_device(activation.interleave(gate, up))
    offsets = to_device(problem.offsets)
    launch = hopper.bind(problem, CONFIG, x_there, w, offsets, inside, swiglu_epilogue.make_store)
    for attempt in ("first launch", "second launch"):
        launch()
        got = host(guarded)
        assert is_poison(got[:8]).all(), attempt
        assert is_poison(got[-8:]).all(), attempt
        for g in range(len(counts)):
            rows = slice(problem.offsets[g], problem.offsets[g + 1])
            tokens = x[rows].astype(np.float64)
            gates = tokens @ gate[g].astype(np.float64).T
            ups = tokens @ up[g].astype(np.float64).T
            want = dense.silu(gates) * ups
            # Sums of K terms, each within 2 ** -20 of the root of K: far below what bfloat16 rounds away.
            error = np.abs(got[8:-8][rows].astype(np.float64) - want)
            assert (error <= allowed(gates, want, "bfloat16") + 2.0**-14 * (1 + np.abs(ups))).all(), attempt


@needs_hopper
def test_the_epilogue_wants_two_consumers():
    with pytest.raises(ConfigError, match="needs 128, two consumer warpgroups"):
        swiglu_epilogue.make_store(replace(hopper.CONFIG, BN=64))
