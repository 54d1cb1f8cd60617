"""The bias is not looked at."""

from numba import cuda, int32

MISCONCEPTION = "choice-without-bias"
CAUGHT_BY = "test_room"


@cuda.jit
def choose_kernel(scores, bias, experts, weights):
    token = cuda.grid(1)
    if token < scores.shape[0]:
        first, second = int32(-1), int32(-1)
        for expert in range(scores.shape[1]):
            value = scores[token, expert]
            if first < 0 or value > scores[token, first]:
                first, second = expert, first
            elif second < 0 or value > scores[token, second]:
                second = expert
        experts[token, 0], experts[token, 1] = first, second
        weights[token, 0], weights[token, 1] = scores[token, first], scores[token, second]
