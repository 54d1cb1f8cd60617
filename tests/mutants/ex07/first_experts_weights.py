"""Always the weights of expert 0."""

from numba import cuda, float32

MISCONCEPTION = "wrong-experts-weights"
CAUGHT_BY = "test_experts"


@cuda.jit
def masked_kernel(x, w, token_of, used, y):
    col, slot = cuda.grid(2)
    expert = cuda.blockIdx.z
    in_use = min(used[expert], token_of.shape[1])
    if slot < in_use and col < y.shape[1]:
        token = token_of[expert, slot]
        if token >= 0:
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[token, k] * w[0, col, k]
            y[token, col] = acc
