"""How kernels are run: seeds, interleaving, configurations, the device, debugging, exceptions."""

import io
import math
import pdb
import threading
import warnings

import numpy as np
import pytest
from numba import cuda, float32

from gemm_lessons import sim
from gemm_lessons.sim.report import last_report


@cuda.jit
def lost_update(counter):
    value = counter[0]
    counter[0] = value + 1


def count_with(seed, mode="plain"):
    counter = np.zeros(1, np.int32)
    with sim.configured(mode=mode, seed=seed):
        lost_update[8, 4](counter)
    return counter[0]


def test_some_seed_makes_a_counter_without_atomic_fail():
    results = [count_with(seed) for seed in range(1, 6)]
    assert min(results) < 32


def test_a_seed_replays():
    assert [count_with(3) for _ in range(3)] == [count_with(3)] * 3


def test_messages_do_not_change_from_run_to_run():
    messages = set()
    for _ in range(3):
        with pytest.raises(sim.SimulatorError) as caught:
            count_with(2, "checked")
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert "GEMM_LESSONS_SIM_SEED=2 replays this" in messages.pop()


@cuda.jit
def fill(x, value):
    x[cuda.grid(1)] = value


def test_a_configuration_is_a_copy():
    one, two = fill[1, 4], fill[2, 8]
    x, y = np.zeros(4), np.zeros(16)
    one(x, 1)
    two(y, 2)
    assert x.sum() == 4
    assert y.sum() == 32
    assert fill.grid_dim is None


def test_options_of_the_gpu_are_accepted():
    @cuda.jit(lto=True, launch_bounds=(128, 1), max_registers=64, fastmath=True, lineinfo=True, opt=True)
    def kernel(x):
        x[cuda.grid(1)] = 1

    x = np.zeros(4)
    kernel[1, 4](x)
    assert x.all()


def test_import_styles():
    import numba
    import numba.cuda as gpu
    from numba.cuda import grid

    def make(module):
        @numba.cuda.jit
        def kernel(x):
            i = grid(1)
            x[i] = module.threadIdx.x + gpu.blockDim.x + numba.cuda.gridsize(1)

        return kernel

    x = np.zeros(4)
    make(cuda)[1, 4](x)
    np.testing.assert_array_equal(x, np.arange(4) + 8)


def test_device_answers_with_the_settings():
    sim.configure(sms=5, compute_capability=(8, 0), shared_bytes=100_000)
    device = cuda.get_current_device()
    assert device.MULTIPROCESSOR_COUNT == 5
    assert device.compute_capability == (8, 0)
    assert device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN == 100_000
    assert device.WARP_SIZE == 32


def test_events_do_not_make_up_a_time():
    start, stop = cuda.event(), cuda.event()
    start.record()
    stop.record()
    stop.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert math.isnan(
            cuda.event_elapsed_time(start, stop)
            if hasattr(cuda, "event_elapsed_time")
            else start.elapsed_time(stop)
        )
    assert "cannot time kernels" in str(caught[0].message)


def test_an_exception_of_the_kernel_arrives_as_it_is():
    class MyError(Exception):
        def __init__(self, code, text):
            super().__init__(code, text)
            self.code = code

    @cuda.jit
    def kernel(x):
        if cuda.grid(1) == 5:
            raise MyError(7, "no")
        x[0] = 0

    with pytest.raises(MyError) as caught:
        kernel[2, 4](np.zeros(1))
    assert caught.value.code == 7
    assert "thread (1, 0, 0) of block (1, 0, 0), line" in caught.value.__notes__[0]


def test_host_arrays_come_back_even_after_a_finding():
    @cuda.jit
    def kernel(x):
        x[cuda.grid(1)] = 3

    x = np.zeros(4)
    with pytest.raises(sim.SimulatorError):
        kernel[1, 8](x)
    assert (x == 3).all()


def test_a_launch_after_a_failed_one_works():
    with pytest.raises(sim.SimulatorError):
        fill[1, 8](np.zeros(4), 1)
    x = np.zeros(8)
    fill[1, 8](x, 1)
    assert x.all()
    assert last_report().findings == []


def test_in_out_and_inout_arguments():
    x, y, z = np.ones(4), np.zeros(4), np.ones(4)

    @cuda.jit
    def kernel(x, y, z):
        i = cuda.grid(1)
        y[i] = x[i] + 1
        z[i] += 1
        x[i] = 9

    kernel[1, 4](cuda.In(x), cuda.Out(y), cuda.InOut(z))
    assert (x == 1).all()
    assert (y == 2).all()
    assert (z == 2).all()


def test_tuples_of_arrays_and_scalars():
    @cuda.jit
    def kernel(pair, n, flag):
        i = cuda.grid(1)
        if i < n and flag:
            pair[1][i] = pair[0][i] * 2

    x, y = cuda.to_device(np.arange(4.0)), cuda.to_device(np.zeros(4))
    kernel[1, 8]((x, y), 4, True)
    np.testing.assert_array_equal(y.copy_to_host(), [0, 2, 4, 6])


def test_aliasing_arguments_are_the_same_memory():
    @cuda.jit
    def kernel(x, y):
        t = cuda.threadIdx.x
        x[t] = t
        y[31 - t] = t

    d = cuda.to_device(np.zeros(64))
    with pytest.raises(sim.SimulatorError, match="data race on global array"):
        kernel[1, 32](d, d[:32])


def test_two_shared_arrays_on_one_line_and_in_two_calls():
    @cuda.jit(device=True)
    def scratch():
        return cuda.shared.array(4, float32)

    @cuda.jit
    def kernel(x):
        a = cuda.shared.array(4, float32)
        b = cuda.shared.array(4, float32)
        t = cuda.threadIdx.x
        for _ in range(20):  # long enough for the interpreter to specialise the calls
            c = scratch()
        a[t], b[t], c[t] = 1, 2, 4
        d = scratch()
        cuda.syncthreads()
        x[t] = a[t] + b[t] + d[t]

    x = np.zeros(4)
    kernel[1, 4](x)
    assert (x == 7).all()


def test_breakpoint_steps_across_a_barrier(monkeypatch):
    commands = io.StringIO("next\nnext\np t\ncontinue\n")
    output = io.StringIO()
    debugger = pdb.Pdb(stdin=commands, stdout=output, nosigint=True)
    debugger.use_rawinput = False

    @cuda.jit
    def kernel(x):
        t = cuda.threadIdx.x
        if t == 2:
            debugger.set_trace()
        x[t] = t
        cuda.syncthreads()
        x[t] += 1

    kernel[1, 4](np.zeros(4))
    assert "\n(Pdb) 2\n" in output.getvalue()


def test_endless_loop_in_a_device_function_names_its_line():
    @cuda.jit(device=True)
    def forever(n):
        while n > 0:
            n += 1
        return n

    @cuda.jit
    def kernel(x):
        x[0] = forever(1)

    with (
        sim.configured(slice_seconds=0.2),
        pytest.raises(sim.SimulatorError, match=r"'forever'|n > 0|n \\+= 1"),
    ):
        kernel[1, 1](np.zeros(1))


def test_more_blocks_than_fit_wait_their_turn():
    x = np.zeros(5000)
    fill[5000, 1](x, 1)
    assert x.all()
    assert {span.sm for span in last_report().spans} == set(range(8))


def test_cooperative_launch_knows_what_fits():
    block_limit = fill.overloads[()].max_cooperative_grid_blocks(256)
    assert block_limit == 8 * 8

    @cuda.jit
    def kernel(x):
        cuda.cg.this_grid().sync()
        x[cuda.grid(1)] = 1

    with pytest.raises(sim.SimulatorError, match="no more than 64 fit"):
        kernel[65, 256](np.zeros(65 * 256))


def test_launches_from_several_python_threads_take_turns():
    results = {}

    @cuda.jit
    def kernel(x, value):
        i = cuda.grid(1)
        x[i] = value
        cuda.syncthreads()
        cuda.syncthreads()

    def work(value):
        x = np.zeros(64)
        for _ in range(5):
            kernel[1, 64](x, value)
        results[value] = x

    workers = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((x == value).all() for value, x in results.items())
    assert len(results) == 4


def test_a_kernel_cannot_launch_a_kernel():
    @cuda.jit
    def outer(x):
        fill[1, 1](x, 1)

    with pytest.raises(sim.SimulatorError, match="cannot launch"):
        outer[1, 1](np.zeros(1))
