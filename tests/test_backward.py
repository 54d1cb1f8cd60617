"""The layer's backward pass: gradients checked by finite differences in float64, kernels against that."""

from dataclasses import replace

import numpy as np
import pytest

from gemm_lessons.compare import tolerance
from gemm_lessons.moe import dense, training
from gemm_lessons.moe.backward import (
    ORACLE,
    Weights,
    backward,
    combine_backward,
    forward,
    router_backward,
    softmax_backward,
    sum_rows,
    swiglu_backward,
)
from gemm_lessons.moe.backward_kernels import KERNELS
from gemm_lessons.moe.balance import switch_loss_gradient
from gemm_lessons.moe.router import TopK
from gemm_lessons.problem import ProblemError

UNIT = 2.0**-24  # of float32: half the distance from 1 to the next number
TOKENS, EXPERTS, WIDTH, HIDDEN = 6, 4, 3, 5

modes = pytest.mark.parametrize(
    ("top_k", "renormalise"), [(1, False), (2, False), (1, True), (2, True), (3, True)]
)


def random_layer(seed, dtype=np.float64, tokens=TOKENS, experts=EXPERTS, width=WIDTH, hidden=HIDDEN):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32).astype(dtype)

    weights = Weights(draw(experts, width), draw(experts, 2 * hidden, width), draw(experts, width, hidden))
    return weights, draw(tokens, width), draw(tokens, width)


def written_out(weights, x, experts, kept, renormalise):
    """The layer token by token, with a choice that is given; slots that are not kept count for nothing."""
    y = np.zeros_like(x)
    for token, vector in enumerate(x):
        p = np.exp(weights.router @ vector)
        p /= p.sum()
        total = p[experts[token]].sum() if renormalise else 1.0
        for expert in experts[token][kept[token]]:
            gate, up = np.split(weights.gate_up[expert] @ vector, 2)
            y[token] += p[expert] / total * (weights.down[expert] @ (gate / (1 + np.exp(-gate)) * up))
    return y


def slopes(function, array, distance=1e-5):
    """The derivative of a scalar function by every element of an array, by central differences."""
    found = np.empty_like(array)
    for index in np.ndindex(array.shape):
        middle = array[index]
        values = []
        for step in (distance, -distance):
            array[index] = middle + step
            values.append(function())
        array[index] = middle
        found[index] = (values[0] - values[1]) / (2 * distance)
    return found


@modes
def test_forward_is_the_layer_written_out(top_k, renormalise):
    weights, x, _ = random_layer(1)
    y, saved = forward(weights, x, top_k, renormalise=renormalise)
    everything = np.ones(saved.experts.shape, bool)
    np.testing.assert_allclose(y, written_out(weights, x, saved.experts, everything, renormalise), rtol=1e-12)
    assert saved.offsets[-1] == TOKENS * top_k
    assert sorted(saved.row_of.reshape(-1)) == list(range(TOKENS * top_k))
    assert (saved.token_of[saved.row_of] == np.arange(TOKENS)[:, np.newaxis]).all()


@modes
def test_forward_is_the_dense_layer_behind_the_router(top_k, renormalise):
    weights, x, _ = random_layer(9)
    logits = (x @ weights.router.T).astype(np.float32)  # what a router takes
    y, saved = forward(weights, x, top_k, renormalise=renormalise)
    routing = TopK(top_k, renormalise=renormalise).route(logits)
    np.testing.assert_array_equal(saved.experts, routing.experts)
    gate, up = np.split(weights.gate_up, 2, axis=1)
    gates = dense.gates_of(routing.experts, routing.weights, EXPERTS)
    want = dense.layer(x, dense.Weights(gate, up, weights.down), gates)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    pull = softmax_backward(saved.probabilities, training.balance_gradient(saved, 1.0))
    np.testing.assert_allclose(pull, switch_loss_gradient(logits, routing), rtol=1e-5, atol=1e-7)


@modes
@pytest.mark.parametrize("seed", [2, 3])
def test_every_gradient_is_the_slope(top_k, renormalise, seed):
    weights, x, dy = random_layer(seed)
    _, saved = forward(weights, x, top_k, renormalise=renormalise)
    everything = np.ones(saved.experts.shape, bool)

    def loss():
        return np.sum(dy * written_out(weights, x, saved.experts, everything, renormalise))

    dx, gradients = backward(weights, saved, dy)
    for name, array, gradient in zip(("x", *Weights._fields), (x, *weights), (dx, *gradients), strict=True):
        np.testing.assert_allclose(gradient, slopes(loss, array), rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("renormalise", [False, True])
def test_gradients_where_slots_were_dropped(renormalise):
    weights, x, dy = random_layer(4)
    _, saved = forward(weights, x, 2, renormalise=renormalise)
    kept = np.random.default_rng(0).random(saved.experts.shape) < 0.6
    rows = np.sort(saved.row_of[kept])
    renumbered = np.searchsorted(rows, saved.row_of)
    counts = [
        np.sum((rows >= a) & (rows < b)) for a, b in zip(saved.offsets, saved.offsets[1:], strict=False)
    ]
    dropped = replace(
        saved,
        row_of=np.where(kept, renumbered, -1).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        **{name: getattr(saved, name)[rows] for name in ("token_of", "rows", "gate_up", "hidden", "out")},
    )

    def loss():
        return np.sum(dy * written_out(weights, x, saved.experts, kept, renormalise))

    dx, gradients = backward(weights, dropped, dy)
    for name, array, gradient in zip(("x", *Weights._fields), (x, *weights), (dx, *gradients), strict=True):
        np.testing.assert_allclose(gradient, slopes(loss, array), rtol=1e-6, atol=1e-7, err_msg=name)


def test_one_renormalised_expert_teaches_the_router_nothing():
    weights, x, dy = random_layer(5)
    _, saved = forward(weights, x, 1, renormalise=True)
    for operations in (ORACLE, KERNELS):
        arrays = (saved.probabilities, saved.experts, saved.weights, dy[:, :1])
        single = [each if each.dtype.kind == "i" else each.astype(np.float32) for each in arrays]
        assert (operations.router_backward(*single, True) == 0).all()


def test_the_gradient_of_probabilities_reaches_the_router():
    weights, x, dy = random_layer(6)
    _, saved = forward(weights, x, 2)
    strength = 0.7

    def loss():
        _, now = forward(weights, x, 2)
        shares = np.diff(saved.offsets) / saved.offsets[-1]
        return strength * EXPERTS * np.sum(shares * now.probabilities.mean(axis=0))

    pull = training.balance_gradient(saved, strength)
    _, gradients = backward(weights, saved, 0 * dy, d_probabilities=pull)
    np.testing.assert_allclose(gradients.router, slopes(loss, weights.router), rtol=1e-6, atol=1e-9)


def as_float32(*arrays):
    return [array.astype(np.int32 if array.dtype.kind == "i" else np.float32) for array in arrays]


def within(got, want, allowed):
    assert got.dtype == np.float32
    assert got.shape == want.shape
    error = np.abs(got.astype(np.float64) - want)
    assert (error <= allowed).all(), f"{(error / allowed).max():.2f} times the tolerance"


@pytest.mark.parametrize("width", [1, 33, 40])
def test_combine_backward_as_a_kernel(width):
    rng = np.random.default_rng(width)
    dy, out, weights = rng.standard_normal((5, width)), rng.standard_normal((8, width)), rng.random(8)
    arrays = as_float32(dy, out, weights, rng.integers(0, 5, 8))
    d_out, d_weights = KERNELS.combine_backward(*arrays)
    exact = [array.astype(np.float64) if array.dtype.kind == "f" else array for array in arrays]
    want_out, want_weights = combine_backward(*exact)
    within(d_out, want_out, UNIT * np.abs(want_out))
    spread = np.sqrt(np.sum(np.square(exact[0][exact[3]] * exact[1]), axis=1))
    within(d_weights, want_weights, tolerance(want_weights, spread, width, "float32"))


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (3, 130)])
def test_swiglu_backward_as_a_kernel(shape):
    rng = np.random.default_rng(shape[1])
    gate_up, d_hidden = as_float32(
        3 * rng.standard_normal((shape[0], 2 * shape[1])), rng.standard_normal(shape)
    )
    want = swiglu_backward(gate_up.astype(np.float64), d_hidden.astype(np.float64))
    gate, up = np.split(np.abs(gate_up.astype(np.float64)), 2, axis=1)
    # Before anything cancels: a few units for exp and the division, one for each product and sum.
    size = np.abs(np.tile(d_hidden, 2)) * np.concatenate([up * (1 + gate), gate], axis=1)
    within(KERNELS.swiglu_backward(gate_up, d_hidden), want, 16 * UNIT * size)


def test_sum_rows_as_a_kernel():
    rng = np.random.default_rng(9)
    row_of = np.array([[0, 3, -1], [-1, -1, -1], [2, 1, 4]], np.int32)
    rows = rng.standard_normal((5, 40)).astype(np.float32)
    want = sum_rows(rows.astype(np.float64), row_of)
    within(KERNELS.sum_rows(rows, row_of), want, 4 * UNIT * np.abs(rows).sum(axis=0) + 1e-30)
    assert (KERNELS.sum_rows(rows, row_of)[1] == 0).all()


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("renormalise", [False, True])
def test_router_backward_as_a_kernel(top_k, renormalise):
    weights, x, _ = random_layer(10 + top_k, tokens=9, experts=5)
    _, saved = forward(weights, x, top_k, renormalise=renormalise)
    d_weights = np.random.default_rng(1).standard_normal(saved.weights.shape)
    arrays = as_float32(saved.probabilities, saved.experts, saved.weights, d_weights)
    exact = [array.astype(np.float64) if array.dtype.kind == "f" else array for array in arrays]
    want = router_backward(*exact, renormalise)
    chosen = np.take_along_axis(exact[0], saved.experts, axis=1)
    total = chosen.sum(axis=1, keepdims=True) if renormalise else 1.0
    size = exact[0] * (np.abs(d_weights).sum(axis=1, keepdims=True) * 2 / total)
    within(KERNELS.router_backward(*arrays, renormalise), want, 16 * UNIT * size + 1e-30)


@modes
def test_the_whole_way_back_with_kernels(top_k, renormalise):
    weights, x, dy = random_layer(20 + top_k, np.float32, tokens=20, experts=6, width=5, hidden=7)
    weights64, x64, dy64 = random_layer(20 + top_k, np.float64, tokens=20, experts=6, width=5, hidden=7)
    y64, saved64 = forward(weights64, x64, top_k, renormalise=renormalise)
    dx64, wanted = backward(weights64, saved64, dy64)
    y, saved = forward(weights, x, top_k, KERNELS, renormalise=renormalise)
    dx, gradients = backward(weights, saved, dy, KERNELS)
    np.testing.assert_array_equal(saved.experts, saved64.experts)
    # Four sums in a row, each of at most 20 terms, of numbers as large as the largest of the result.
    for got, want in zip((y, dx, *gradients), (y64, dx64, *wanted), strict=True):
        within(got, want, 6 * UNIT * np.sqrt(4 * 20) * max(np.abs(want).max(), 1.0))


@pytest.mark.gpu
@modes
def test_the_whole_way_back_on_a_gpu(top_k, renormalise):
    sizes = {"tokens": 700, "experts": 8, "width": 96, "hidden": 130}
    weights, x, dy = random_layer(30 + top_k, np.float32, **sizes)
    # why divided: a hidden value is a product of two sums, and its exp should stay far from overflow
    weights = Weights(*(each / np.float32(10) for each in weights))
    weights64 = Weights(*(each.astype(np.float64) for each in weights))
    y64, saved64 = forward(weights64, x.astype(np.float64), top_k, renormalise=renormalise)
    dx64, wanted = backward(weights64, saved64, dy.astype(np.float64))
    y, saved = forward(weights, x, top_k, KERNELS, renormalise=renormalise)
    dx, gradients = backward(weights, saved, dy, KERNELS)
    np.testing.assert_array_equal(saved.experts, saved64.experts)
    for got, want in zip((y, dx, *gradients), (y64, dx64, *wanted), strict=True):
        within(got, want, 6 * UNIT * np.sqrt(4 * 700) * max(np.abs(want).max(), 1.0))
    again = backward(weights, saved, dy, KERNELS)
    assert np.array_equal(dx, again[0])
    assert all(np.array_equal(one, other) for one, other in zip(gradients, again[1], strict=True))


def test_kernels_refuse_float64():
    with pytest.raises(ProblemError, match="float32 and were given float64"):
        KERNELS.swiglu_backward(np.zeros((2, 4)), np.zeros((2, 2)))


def test_experts_without_tokens_cost_nothing_and_no_tokens_are_fine():
    weights, x, dy = random_layer(7, np.float32)
    for operations in (ORACLE, KERNELS):
        _, saved = forward(weights, x[:0], 2, operations)
        dx, gradients = backward(weights, saved, dy[:0], operations)
        assert dx.shape == (0, WIDTH)
        assert all((gradient == 0).all() for gradient in gradients)


def test_wrong_shapes_are_refused():
    weights, x, dy = random_layer(8)
    for top_k in (0, EXPERTS + 1):
        with pytest.raises(ProblemError, match=f"top_k is {top_k}: use 1 to {EXPERTS}"):
            forward(weights, x, top_k)
    with pytest.raises(ProblemError, match=r"x has shape \(6, 2\), the router needs \[T, 3\]"):
        forward(weights, x[:, :2], 1)
    _, saved = forward(weights, x, 1)
    with pytest.raises(ProblemError, match=r"dy has shape \(5, 3\)"):
        backward(weights, saved, dy[:5])


def test_training_with_kernels_is_training_with_numpy():
    with_numpy = training.train(seed=2, balance=0.1, steps=2)
    with_kernels = training.train(seed=2, balance=0.1, steps=2, operations=KERNELS)
    again = training.train(seed=2, balance=0.1, steps=2, operations=KERNELS)
    for want, got, same in zip(with_numpy.weights, with_kernels.weights, again.weights, strict=True):
        for name, a, b, c in zip(Weights._fields, want, got, same, strict=True):
            # why so much: Adam divides by a gradient's own size, also where that is nearly nothing
            np.testing.assert_allclose(b, a, atol=1e-4, err_msg=name)
            assert np.array_equal(b, c), f"{name} differs from run to run"


def test_experts_specialise_and_without_balance_one_starves():
    balanced, alone = training.train(seed=2, balance=0.1), training.train(seed=2, balance=0.0)
    shares = training.shares_of_clusters(balanced.weights[-1])
    assert (shares.max(axis=1) > 0.9).all()
    assert sorted(shares.argmax(axis=1)) == [0, 1, 2, 3]
    assert (alone.loads[-1] == 0).any()
    assert np.mean(balanced.losses[-20:]) < 0.7 * np.mean(alone.losses[-20:]) < 0.2 * alone.losses[0]
