"""Launches are checked before anything happens, on both paths alike."""

import numpy as np
import pytest

from gemm_lessons import device
from gemm_lessons.launch import Launch, LaunchError, Prepared, num_resident_blocks
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.steps import STEPS

device.choose()

from numba import cuda  # noqa: E402


@cuda.jit
def count_calls(counter):
    if cuda.grid(1) == 0:
        counter[0] += 1


@cuda.jit
def count_blocks(counter):
    cuda.atomic.add(counter, 0, 1)


def counter():
    return cuda.to_device(np.zeros(1, np.int32))


def test_a_launch_can_be_repeated():
    calls = counter()
    launch = Launch(count_calls, 2, 32, (calls,))
    for _ in range(3):
        launch()
    cuda.synchronize()
    assert calls.copy_to_host()[0] == 3
    assert launch.num_blocks == 2


def test_a_grid_counts_blocks_where_there_are_clusters_too():
    if device.choose().compute_capability < (9, 0):
        pytest.skip("NOT RUN: clusters need compute capability 9.0")
    blocks = counter()
    Launch(count_blocks, 4, 1, (blocks,), cluster=2)()
    cuda.synchronize()
    assert blocks.copy_to_host()[0] == 4


def test_a_launch_goes_to_a_stream():
    calls, stream = counter(), cuda.stream()
    Launch(count_calls, 1, 1, (calls,))(stream)
    stream.synchronize()
    assert calls.copy_to_host()[0] == 1


@pytest.mark.parametrize(
    ("grid", "block", "options", "message"),
    [
        (0, 32, {}, "grid .0,. is empty"),
        ((1, 70000), 32, {}, "one axis may have 65535 blocks"),
        (1, 2048, {}, "2048 threads: use 1 to 1024"),
        (1, (32, 0), {}, "0 threads"),
        (1, 32, {"shared_bytes": 1 << 20}, "1048576 bytes of shared memory per block"),
        (5, 32, {"cluster": 2}, "a grid of .5,. cannot be cut into clusters of 2 blocks"),
    ],
)
def test_an_impossible_launch_is_refused_with_its_numbers(grid, block, options, message):
    with pytest.raises(LaunchError, match=message):
        Launch(count_calls, grid, block, (counter(),), **options)


def test_resident_blocks_are_a_multiple_of_the_sms():
    assert num_resident_blocks(count_calls, 32, (counter(),)) % device.choose().num_sms == 0


def test_a_prepared_step_does_not_let_an_old_result_pass():
    problem = GroupedProblem((3, 2), N=4, K=4)
    inputs = problem.inputs()
    prepared = STEPS["naive"].prepare(problem, None, inputs)
    prepared.check(inputs).raise_if_wrong("naive")
    idle = Prepared(problem, prepared.config, {}, prepared.output, prepared.work)
    assert "every output is unwritten" in str(idle.check(inputs))
