"""A slot counts the slots before it, whichever thread has it; the scan goes through shared memory."""

from numba import cuda, int32

EXERCISE = "ex08_moe_layer"


@cuda.jit
def scan_kernel(counts, capacity, offsets):
    s_sum = cuda.shared.array(64, int32)
    expert, num_experts = cuda.threadIdx.x, counts.shape[0]
    s_sum[expert] = min(counts[expert], capacity)
    step = 1
    while step < num_experts:
        cuda.syncthreads()
        below = int32(0)
        if expert >= step:
            below = s_sum[expert - step]
        cuda.syncthreads()
        s_sum[expert] += below
        step *= 2
    offsets[expert + 1] = s_sum[expert]
    if expert == 0:
        offsets[0] = 0


@cuda.jit
def place_kernel(experts, offsets, row_of):
    num_tokens = experts.shape[0]
    for slot in range(cuda.threadIdx.x, 2 * num_tokens, cuda.blockDim.x):
        choice, token = slot // num_tokens, slot % num_tokens
        expert = experts[token, choice]
        rank = 0
        for other in range(slot):
            if experts[other % num_tokens, other // num_tokens] == expert:
                rank += 1
        first, end = offsets[expert], offsets[expert + 1]
        row_of[token, choice] = first + rank if first + rank < end else -1
