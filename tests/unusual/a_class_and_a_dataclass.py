"""A dataclass for the launch, and divmod."""

from dataclasses import dataclass

EXERCISE = "ex02_launches"


@dataclass
class Range:
    first: int
    last: int


def blocks(extent, size):
    full, rest = divmod(extent, size)
    return full + (rest > 0)


def launch_experts(launch, counts, x, w, bias, y):
    done = Range(0, 0)
    for group in range(len(counts)):
        done = Range(done.last, done.last + counts[group])
        if done.last == done.first:
            continue
        grid = (blocks(y.shape[1], 16), blocks(counts[group], 4))
        rows = slice(done.first, done.last)
        launch(expert_kernel, grid, [16, 4], x[rows, :], w[group, :, :], bias[group, :], y[rows, :])
