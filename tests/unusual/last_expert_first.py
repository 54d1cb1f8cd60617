"""Launches in reverse order, with offsets from itertools."""

from itertools import accumulate

EXERCISE = "ex02_launches"


def launch_experts(launch, counts, x, w, bias, y):
    ends = list(accumulate(counts))
    for group in reversed(range(len(counts))):
        if not counts[group]:
            continue
        first, last = ends[group] - counts[group], ends[group]
        grid = ((y.shape[1] + 15) // 16, (last - first + 3) // 4)
        launch(expert_kernel, grid, (16, 4), x[first:last], w[group], bias[group], y[first:last])
