"""The second choice is the first one again."""

from numba import cuda

MISCONCEPTION = "expert-twice"
CAUGHT_BY = "test_room"


@cuda.jit
def choose_kernel(scores, bias, experts, weights):
    token = cuda.grid(1)
    if token < scores.shape[0]:
        for choice in range(2):
            best = 0
            for expert in range(scores.shape[1]):
                if scores[token, expert] + bias[expert] > scores[token, best] + bias[best]:
                    best = expert
            experts[token, choice] = best
            weights[token, choice] = scores[token, best]
