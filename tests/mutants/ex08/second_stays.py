"""A new first choice does not make the old one second."""

from numba import cuda, int32

MISCONCEPTION = "old-first-forgotten"
CAUGHT_BY = "test_room"


@cuda.jit
def choose_kernel(scores, bias, experts, weights):
    token = cuda.grid(1)
    if token < scores.shape[0]:
        first, second = int32(-1), int32(-1)
        for expert in range(scores.shape[1]):
            value = scores[token, expert] + bias[expert]
            if first < 0 or value > scores[token, first] + bias[first]:
                first = expert
            elif second < 0 or value > scores[token, second] + bias[second]:
                second = expert
        experts[token, 0], experts[token, 1] = first, second
        weights[token, 0], weights[token, 1] = scores[token, first], scores[token, second]
