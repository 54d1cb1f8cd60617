"""At least one block for every expert, so that no grid is empty."""

MISCONCEPTION = "launches-for-empty"
CAUGHT_BY = "test_launches"


def launch_experts(launch, counts, x, w, bias, y):
    columns = -(-y.shape[1] // BLOCK_COLUMNS)
    first = 0
    for group, count in enumerate(counts):
        last = first + count
        grid = (columns, max(1, -(-count // BLOCK_ROWS)))
        block = (BLOCK_COLUMNS, BLOCK_ROWS)
        launch(expert_kernel, grid, block, x[first:last], w[group], bias[group], y[first:last])
        first = last
