"""Two slots of an expert read the same next row before either moves it on."""

from numba import cuda, int32

MISCONCEPTION = "two-to-one-row"
CAUGHT_BY = "test_clean"


@cuda.jit
def place_kernel(experts, offsets, row_of):
    s_next = cuda.shared.array(64, int32)
    s_next[cuda.threadIdx.x] = offsets[cuda.threadIdx.x]
    cuda.syncthreads()
    for choice in range(2):
        for token in range(cuda.threadIdx.x, experts.shape[0], cuda.blockDim.x):
            expert = experts[token, choice]
            row_of[token, choice] = -1
            if s_next[expert] < offsets[expert + 1]:
                row_of[token, choice] = s_next[expert]
                s_next[expert] += 1
        cuda.syncthreads()
