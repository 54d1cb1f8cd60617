"""How other libraries are wrapped, with a torch that the test wrote: a replay is judged by what it wrote."""

import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from gemm_lessons.measure import peers
from gemm_lessons.problem import GroupedProblem
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
