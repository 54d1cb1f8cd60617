"""No false alarm, whatever the seed, and the same results in plain mode."""

import pytest

from gemm_lessons import sim

from .corpus.right import KERNELS

SEEDS = (0, 1, 2, 3)


@pytest.mark.parametrize("name", KERNELS)
def test_right_kernel_passes_checked(name):
    for seed in SEEDS:
        with sim.configured(seed=seed, slice_seconds=5):
            KERNELS[name]()


@pytest.mark.parametrize("name", KERNELS)
def test_right_kernel_passes_plain(name):
    for seed in SEEDS[:2]:
        with sim.configured(seed=seed, mode="plain", slice_seconds=5):
            KERNELS[name]()
