"""Every wrong kernel is caught, for every seed, with the right kind and the right expression."""

import pytest

from gemm_lessons import sim

from .corpus.wrong import KERNELS

SEEDS = (0, 1, 2, 3)


@pytest.mark.parametrize("name", KERNELS)
def test_wrong_kernel_is_caught(name):
    kind, text, _, launch = KERNELS[name]
    for seed in SEEDS:
        with (
            sim.configured(seed=seed, sms=2, slice_seconds=0.5, seconds=20),
            pytest.raises(sim.SimulatorError) as caught,
        ):
            launch()
        kinds = [finding.kind for finding in caught.value.findings]
        assert kind in kinds, f"seed {seed}: {caught.value}"
        mine = [f for f in caught.value.findings if f.kind == kind]
        assert any(text in str(f) for f in mine), f"seed {seed}: {caught.value}"
        assert (
            seed == 0
            or f"GEMM_LESSONS_SIM_SEED={seed} replays this" in str(caught.value)
            or (kind in ("launch", "misuse"))
        )


@pytest.mark.parametrize("name", [n for n, entry in KERNELS.items() if entry[0] == "race"])
def test_a_missing_barrier_is_not_called_uninitialised(name):
    for seed in SEEDS:
        with sim.configured(seed=seed), pytest.raises(sim.SimulatorError) as caught:
            KERNELS[name][3]()
        kinds = {finding.kind for finding in caught.value.findings}
        assert "race" in kinds
        assert "uninitialized" not in kinds
