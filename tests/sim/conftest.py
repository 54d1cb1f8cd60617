"""Kernels of these tests run in the simulator, whatever the machine has."""

import os

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

import pytest

from gemm_lessons import sim

sim.install()


@pytest.fixture(autouse=True)
def _settings():
    """Each test starts from the default settings."""
    with sim.configured(mode="checked", seed=0):
        yield
