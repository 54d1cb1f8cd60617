"""Kernels of these tests run in the simulator; with a GPU, GEMM_LESSONS_DEVICE=sim asks for it."""

import pytest

from gemm_lessons import device, sim

# why: Numba's mode is chosen once in a process, so these tests cannot even be imported in GPU mode.
collect_ignore_glob = [] if device.choose().kind == "sim" else ["test_*.py"]


@pytest.fixture(autouse=True)
def _settings():
    """Each test starts from the default settings."""
    with sim.configured(mode="checked", seed=0):
        yield
