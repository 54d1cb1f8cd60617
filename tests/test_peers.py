"""How other libraries are wrapped, with a torch that the test wrote: a replay is judged by what it wrote."""

import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from gemm_lessons.compare import NUM_GUARD_ROWS, WGMMA_E4M3_BITS, check_output, poisoned
from gemm_lessons.measure import peers
from gemm_lessons.problem import DTYPES, GroupedProblem
from gemm_lessons.quantize import dequantize, draw_inputs
from gemm_lessons.reference import grouped_gemm

PROBLEM = GroupedProblem((3, 0, 2), 4, 8)
GPU = SimpleNamespace(stream=0, wait=lambda: None)


class Tensor:
    """Just enough of a tensor: it can be filled."""

    def __init__(self, array):
        self.array = array

    def fill_(self, value):
        self.array.fill(value)


class FakeTorch:
    """Records what is computed during a capture and does it again at every replay."""

    def __init__(self, *, can_capture=True):
        self.capturing = None
        graph = self.graph if can_capture else self.refuse
        self.cuda = SimpleNamespace(
            synchronize=lambda: None,
            stream=lambda stream: nullcontext(),
            ExternalStream=int,
            CUDAGraph=lambda: SimpleNamespace(replay=self.replay),
            graph=graph,
        )
        self.replayed = []

    @contextmanager
    def graph(self, graph):
        self.capturing = []
        yield
        self.replayed, self.capturing = self.capturing, None

    def refuse(self, graph):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    def replay(self):
        for write in self.replayed:
            write()

    def product(self, inputs):
        """A function that returns a new tensor from every call, and fills it now or at a replay."""

        def compute():
            tensor = Tensor(np.full((PROBLEM.total_tokens, PROBLEM.N), np.nan, np.float32))

            def write():
                tensor.array[:] = grouped_gemm(inputs.x, inputs.w, PROBLEM.offsets)

            if self.capturing is None:
                write()
            else:
                self.capturing.append(write)
            return tensor

        return compute


@pytest.fixture
def fake(monkeypatch):
    def make(**options):
        torch = FakeTorch(**options)
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(peers, "_array", lambda tensor, dtype: tensor.array.astype(dtype))
        return torch

    return make


def test_a_replay_is_judged_by_what_it_wrote(fake):
    torch, inputs = fake(), PROBLEM.inputs()
    run = peers.torch_run(PROBLEM, torch.product(inputs))
    run.eager(0)
    assert run.judge(GPU, inputs).ok
    assert run.note == ""


def test_a_replay_that_does_nothing_is_wrong(fake):
    torch, inputs = fake(), PROBLEM.inputs()
    run = peers.torch_run(PROBLEM, torch.product(inputs))
    torch.replayed = []
    run.eager(0)  # leaves a right result behind, which must not pass for the replay's
    assert not run.judge(GPU, inputs).ok


def test_what_cannot_be_captured_is_called_and_says_so(fake):
    torch, inputs = fake(can_capture=False), PROBLEM.inputs()
    run = peers.torch_run(PROBLEM, torch.product(inputs))
    assert run.judge(GPU, inputs).ok
    assert run.note == "without a CUDA graph: operation not permitted when stream is capturing"


def test_fp8_peers_get_the_same_numbers_with_scales_of_whole_rows():
    problem = GroupedProblem((3, 0, 2), 8, 272, "float8_e4m3fn")
    inputs = draw_inputs(problem)
    rows = peers.scaled_by_rows(inputs)
    assert (rows.x.scales.shape, rows.w.scales.shape) == ((5, 1), (3, 8, 1))
    for ours, theirs in zip(inputs, rows, strict=True):
        one, other = dequantize(ours), dequantize(theirs)
        assert np.abs(one - other).max() <= np.abs(one).max() / 16, (
            "half a unit of three bits, rounded once more"
        )
    y = grouped_gemm(dequantize(rows.x), dequantize(rows.w), problem.offsets).astype(DTYPES["bfloat16"])
    guards = poisoned(NUM_GUARD_ROWS, problem.N, y.dtype)
    guarded = np.concatenate([guards, y, guards])
    assert check_output(guarded, problem, rows).ok
    assert not check_output(guarded, problem, inputs).ok, "the two recipes differ, and so do their products"


def test_sums_that_never_leave_the_tensor_core_are_allowed_more():
    assert [peers.bits_of_long_sums(K) for K in (64, 128, 512, 2048, 7168)] == [14, 14, 13, 12, 11]
    assert peers.bits_of_long_sums(128) == WGMMA_E4M3_BITS


def test_torchs_fp8_product_is_a_peer():
    problem = GroupedProblem((3,), 16, 16, "float8_e4m3fn")
    names = [peer.name for peer in peers.PEERS if problem.dtype in peer.dtypes]
    assert names == ["torch._scaled_grouped_mm", "torch._scaled_grouped_mm, fast accumulation"]
