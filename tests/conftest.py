"""Settings for all tests: a GPU test without a GPU is not run, and says so."""

import pytest

from gemm_lessons import device

device.choose()  # before a test imports Numba

# Files that take minutes, the longest first: everybody waits for a worker that begins one at the end.
LONGEST = (
    "test_compile_gate.py",
    "test_notebooks.py",
    "test_layer.py",
    "test_hopper_fp8.py",
    "test_hopper.py",
)


def duration(item):
    """Where a test's file stands among the long ones."""
    return LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(items):
    items.sort(key=duration)
    chosen = device.choose()
    if chosen.is_gpu:
        return
    not_run = pytest.mark.skip(reason=f"NOT RUN: needs a GPU, and {chosen.reason}")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(not_run)
