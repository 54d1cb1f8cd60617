"""Without a GPU: every kernel compiles for every generation, spills nothing and computes in float32."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemm_lessons.cuda_tools import find_tool

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=["core", pytest.param("rest", marks=pytest.mark.slow)])
def compiled(request):
    """What ptxas said of each kernel for each generation; `compile_all` says which are core."""
    script = Path(__file__).with_name("compile_all.py")
    environment = os.environ | {"GEMM_LESSONS_DEVICE": "compile", "NUMBA_ENABLE_CUDASIM": "0"}
    command = [sys.executable, str(script), request.param]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode == 3:
        pytest.skip(f"NOT RUN: {run.stdout.strip()}")
    assert run.returncode == 0, run.stderr[-3000:]
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert found
    return found


def of_these(compiled, expected):
    """What is expected of the kernels that were compiled, and of none but them."""
    names = {facts["kernel"] for facts in compiled}
    assert names & set(expected), "none of these kernels was compiled"
    return {name: value for name, value in expected.items() if name in names}


def offenders(compiled, fact):
    return [f"{facts['kernel']} on sm {facts['sm']}: {facts[fact]}" for facts in compiled if facts[fact]]


@pytest.mark.parametrize("fact", ["spill_bytes", "stack_bytes", "warnings", "float64"])
def test_no_kernel_has(compiled, fact):
    assert offenders(compiled, fact) == []


def test_every_step_compiles_for_every_generation(compiled):
    from gemm_lessons.steps import STEPS

    pairs = {(facts["kernel"], facts["sm"]) for facts in compiled}
    core = {(name, sm) for name in STEPS for sm in ("7.5", "9.0")}
    assert core <= pairs or {(name, "8.0") for name in STEPS} <= pairs


def test_tiles_are_loaded_128_bits_at_a_time(compiled):
    loads = {facts["kernel"]: facts["vector_loads"] for facts in compiled if facts["sm"] == "9.0"}
    if "tiled" not in loads:
        pytest.skip("these kernels are looked at for one generation, with the core")
    assert [name for name in ("tiled", "persistent", "masked", "dgrad", "wgrad") if not loads[name]] == []
    assert [name for name, wide in loads.items() if wide and "scalar" in name] == []


def test_as_many_blocks_fit_on_an_sm_as_the_steps_plan_with(compiled):
    from gemm_lessons.steps import tiled

    registers_per_sm = 65536
    plan = tiled.CONFIG.blocks_per_sm * tiled.CONFIG.num_threads
    for facts in compiled:
        if facts["kernel"] in ("tiled", "persistent", "masked", "dgrad", "wgrad"):
            assert facts["registers"] * plan <= registers_per_sm, facts


def test_the_hopper_kernels_multiply_with_wgmma_in_every_width(compiled):
    widths = {
        facts["kernel"]: facts["wgmma"] // 4 for facts in compiled if facts["kernel"].startswith("hopper")
    }
    plain = {"hopper": 16, "hopper, 128 tokens": 8, "hopper, 64 tokens": 4, "hopper, static": 16}
    swiglu = {f"hopper, SwiGLU, BM = {BM}": BM // 16 for BM in (256, 128, 64)}
    assert widths == of_these(compiled, plain | swiglu)
    others = [facts for facts in compiled if "opper" not in facts["kernel"]]
    assert not any(facts["wgmma"] for facts in others)


def test_the_fp8_kernels_multiply_bytes_with_wgmma(compiled):
    found = {facts["kernel"]: facts["e4m3"] for facts in compiled if facts["e4m3"]}
    # Four instructions a stage, for each number of parts of 64 tokens that a warpgroup may have; and with few
    # tokens, for each width from 16 to 64.
    parts = {256: 2 + 1, 128: 1, 64: 4}
    names = ((BM, f"fp8 on Hopper, BM = {BM}{rows}") for BM in parts for rows in ("", ", whole rows"))
    assert found == of_these(compiled, {name: 4 * parts[BM] for BM, name in names})


def test_the_machine_code_has_every_wgmma_that_was_written(compiled):
    if not find_tool("nvdisasm"):
        pytest.skip("NOT RUN: nvdisasm was not found (CUDA toolkit, or pip install nvidia-cuda-nvdisasm)")
    hopper = [facts for facts in compiled if facts["wgmma"]]
    assert hopper
    for facts in hopper:
        bytes_too = facts["e4m3"]  # QGMMA multiplies bytes, HGMMA 16-bit values
        assert (facts["QGMMA"], facts["HGMMA"]) == (bytes_too, facts["wgmma"] - bytes_too), facts


def test_the_tensor_core_kernels_multiply_with_mma(compiled):
    named = {(facts["kernel"], facts["sm"]) for facts in compiled}
    found = {(facts["kernel"], facts["sm"]) for facts in compiled if facts["mma"]}
    expected = {(f"tensor_core, {dtype}", sm) for dtype in ("float16", "bfloat16") for sm in ("8.0", "9.0")}
    expected |= {("tensor_core, Turing", "7.5")}
    assert expected & named
    assert {pair for pair in found if pair[0].startswith("tensor_core")} == expected & named


def test_the_router_projects_with_mma(compiled):
    found = {
        facts["kernel"]: facts["mma"]
        for facts in compiled
        if facts["kernel"].startswith("project, tensor cores") and facts["sm"] == "9.0"
    }
    # Two steps of K, three parts of w and four tiles of tokens, for each tile of experts.
    expected = {f"project, tensor cores, {8 * tiles} experts": 24 * tiles for tiles in (1, 2, 4, 8)}
    assert not found or found == expected


def test_the_decode_kernels_multiply_with_mma_and_stream_the_weights(compiled):
    decoding = [facts for facts in compiled if facts["kernel"].startswith("decode")]
    assert decoding
    assert [facts for facts in decoding if not (facts["mma"] and facts["streams"])] == []
