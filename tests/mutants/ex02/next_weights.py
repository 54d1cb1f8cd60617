"""The weights of the next expert."""

MISCONCEPTION = "wrong-experts-weights"
CAUGHT_BY = "test_experts"


def launch_experts(launch, counts, x, w, bias, y):
    columns = -(-y.shape[1] // BLOCK_COLUMNS)
    first = 0
    for group, count in enumerate(counts):
        last = first + count
        if count > 0:
            grid = (columns, -(-count // BLOCK_ROWS))
            block = (BLOCK_COLUMNS, BLOCK_ROWS)
            launch(
                expert_kernel,
                grid,
                block,
                x[first:last],
                w[(group + 1) % len(counts)],
                bias[group],
                y[first:last],
            )
        first = last
