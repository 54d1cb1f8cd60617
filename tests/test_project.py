"""The router's projection against NumPy, on both of its kernels."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemm_lessons import device
from gemm_lessons.launch import to_device
from gemm_lessons.moe import project
from gemm_lessons.moe.project import BLOCK_TOKENS, choose_tiles_n, prepare_project
from gemm_lessons.problem import DTYPES, ProblemError

pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both
SHAPES = {
    "a tail everywhere": (9, 10, 32),
    "odd rows": (4, 8, 13),
    "one token": (1, 3, 8),
    "no tokens": (0, 4, 8),
    "all warps, some twice": (3, 3, 264),
    "two blocks of tokens": (BLOCK_TOKENS + 1, 5, 40),
    "two blocks of experts": (2, 65, 16),
}


def projected(x, w):
    """Logits of a launch into a buffer of NaN; twice, to see that nothing is left over from the first."""
    launch, logits = prepare_project(x, w, to_device(np.full((len(x), len(w)), np.nan, np.float32)))
    for _ in range(2):
        if launch:
            launch()
    return logits.copy_to_host()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_projection(dtype, shape):
    num_tokens, num_experts, width = SHAPES[shape]
    rng = np.random.default_rng(2)
    x = rng.standard_normal((num_tokens, width)).astype(DTYPES[dtype])
    w = rng.standard_normal((num_experts, width)).astype(np.float32)
    want = x.astype(np.float64) @ w.T.astype(np.float64)
    # Tensor cores cut off what is below the last bit: an addition is off by an ulp of all that is added.
    room = width * np.finfo(np.float32).eps * (np.abs(x.astype(np.float64)) @ np.abs(w.T))
    assert (np.abs(projected(x, w) - want) <= room).all()


def test_a_row_of_the_identity_gives_the_weights_bit_for_bit():
    rng = np.random.default_rng(3)
    w = rng.standard_normal((5, 72)).astype(np.float32) * np.exp2(rng.integers(-30, 30, (5, 72)))
    w = w.astype(np.float32)
    # why 32 of a kind: they are added together, and hardware may align the others' zeros to the largest
    w[0, :32] = np.finfo(np.float32).max
    w[0, 32:64] = -np.finfo(np.float32).tiny * 2**16
    w[0, 64:] = 0
    x = np.eye(72).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(projected(x, w), w.T)


def test_what_is_not_finite_stays_so_and_reaches_no_other_token():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, 32)).astype(ml_dtypes.bfloat16)
    x[1, 3], x[3, 31] = np.nan, np.inf
    w = rng.standard_normal((6, 32)).astype(np.float32)
    finite = np.isfinite(projected(x, w))
    assert finite.all(axis=1).tolist() == [True, False, True, False, True]
    assert not finite[[1, 3]].any()


@given(st.integers(1, 10**6), st.integers(1, 1024), st.integers(1, 200))
def test_blocks_fill_the_gpu_or_are_as_small_as_they_get(num_tokens, num_experts, num_sms):
    tiles_n = choose_tiles_n(num_tokens, num_experts, num_sms)
    assert tiles_n in (1, 2, 4, 8)

    def blocks(tiles_n):
        return -(-num_tokens // BLOCK_TOKENS) * -(-num_experts // (8 * tiles_n))

    assert tiles_n == 1 or 2 * blocks(tiles_n) > num_sms
    assert tiles_n == 8 or num_experts <= 8 * tiles_n or 2 * blocks(2 * tiles_n) <= num_sms


def test_a_few_idle_sms_are_no_reason_to_read_the_tokens_twice():
    assert choose_tiles_n(8192, 64, 132) == 8  # 128 blocks
    assert choose_tiles_n(8192, 8, 132) == 1
    assert choose_tiles_n(64, 256, 132) == 1


def test_the_number_of_experts_in_a_block_changes_no_bit(monkeypatch):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 40)).astype(ml_dtypes.bfloat16)
    w = rng.standard_normal((9, 40)).astype(np.float32)
    found = set()
    for tiles_n in (1, 4):
        monkeypatch.setattr(project, "choose_tiles_n", lambda *_, chosen=tiles_n: chosen)
        found.add(projected(x, w).tobytes())
    assert len(found) == 1


def test_wrong_projections_are_refused():
    x, w = np.zeros((3, 8), np.float32), np.zeros((4, 8), np.float32)
    with pytest.raises(ProblemError, match="the same D"):
        prepare_project(x, w[:, :4])
    with pytest.raises(ProblemError, match="computes in float32"):
        prepare_project(x, w.astype(np.float16))
    with pytest.raises(ProblemError, match="logits must be float32"):
        prepare_project(x, w, to_device(np.zeros((3, 3), np.float32)))
