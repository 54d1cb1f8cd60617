"""One launch over all rows: every row meets the first expert."""

MISCONCEPTION = "one-launch-for-all"
CAUGHT_BY = "test_experts"


def launch_experts(launch, counts, x, w, bias, y):
    columns = -(-y.shape[1] // BLOCK_COLUMNS)
    first = 0
    total = sum(counts)
    if total > first:
        grid = (columns, -(-total // BLOCK_ROWS))
        launch(expert_kernel, grid, (BLOCK_COLUMNS, BLOCK_ROWS), x, w[0], bias[0], y)
