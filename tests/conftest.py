"""Settings for all tests: a GPU test without a GPU is not run, and says so."""

import pytest

from gemm_lessons import device

device.choose()  # before a test imports Numba


def pytest_collection_modifyitems(items):
    chosen = device.choose()
    if chosen.is_gpu:
        return
    not_run = pytest.mark.skip(reason=f"NOT RUN: needs a GPU, and {chosen.reason}")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(not_run)
