"""Without a GPU: each function emits its instruction, and says that it touches memory where it does."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gemm_lessons.ptx

FOLDER = Path(gemm_lessons.ptx.__file__).parent

EMITTED = (
    r"mbarrier\.init\.shared::cta\.b64 \[%r\d+\], %r\d+;",
    r"fence\.mbarrier_init\.release\.cluster;",
    r"mbarrier\.arrive\.shared::cta\.b64 _, \[%r\d+\];",
    r"mbarrier\.arrive\.shared::cluster\.b64 _, \[%r\d+\];",
    r"mbarrier\.arrive\.expect_tx\.shared::cta\.b64 _, \[%r\d+\], %r\d+;",
    r"mbarrier\.try_wait\.parity\.shared::cta\.b64 p, \[%r\d+\], %r\d+;",
    r"mapa\.shared::cluster\.u32 %r\d+, %r\d+, %r\d+;",
    r"mov\.u32 %r\d+, %cluster_ctarank;",
    r"barrier\.cluster\.arrive; barrier\.cluster\.wait;",
    r"fence\.proxy\.tensormap::generic\.acquire\.sys \[%rd\d+\], 128;",
    r"prefetch\.tensormap \[%rd\d+\];",
    r"cp\.async\.bulk\.prefetch\.tensor\.2d\.L2\.global\.tile \[%rd\d+, \{%r\d+, %r\d+\}\];",
    r"cp\.async\.bulk\.tensor\.2d\.shared::cluster\.global\.mbarrier::complete_tx::bytes"
    r" \[%r\d+\], \[%rd\d+, \{%r\d+, %r\d+\}\], \[%r\d+\];",
    r"cp\.async\.bulk\.shared::cluster\.global\.mbarrier::complete_tx::bytes \[%r\d+\], \[%rd\d+\], %r\d+,"
    r" \[%r\d+\];",
    r"complete_tx::bytes\.multicast::cluster \[%r\d+\], \[%rd\d+, \{%r\d+, %r\d+\}\], \[%r\d+\], %rs\d+;",
    r"cp\.async\.bulk\.tensor\.2d\.global\.shared::cta\.bulk_group \[%rd\d+, \{%r\d+, %r\d+\}\], \[%r\d+\];",
    r"cp\.async\.bulk\.commit_group;",
    r"cp\.async\.bulk\.wait_group\.read 1;",
    r"cp\.async\.bulk\.wait_group 0;",
    r"fence\.proxy\.async\.shared::cta;",
    r"bar\.sync %r\d+, %r\d+;",
    r"setmaxnreg\.dec\.sync\.aligned\.u32 40;",
    r"setmaxnreg\.inc\.sync\.aligned\.u32 232;",
    r"wgmma\.fence\.sync\.aligned;",
    r"wgmma\.mma_async\.sync\.aligned\.m64n8k16\.f32\.bf16\.bf16 \{(%f\d+, ){3}%f\d+\}, %rd\d+, %rd\d+,"
    r" p, 1, 1, 0, 0;",
    r"wgmma\.mma_async\.sync\.aligned\.m64n256k16\.f32\.bf16\.bf16 \{(%f\d+, ){127}%f\d+\}, %rd\d+, %rd\d+,"
    r" p, 1, 1, 0, 0;",
    r"wgmma\.mma_async\.sync\.aligned\.m64n128k32\.f32\.e4m3\.e4m3 \{(%f\d+, ){63}%f\d+\}, %rd\d+, %rd\d+,"
    r" p, 1, 1;",
    r"setp\.ne\.b32 p, 0, 0; wgmma\.mma_async\.sync\.aligned\.m64n128k32\.f32\.e4m3\.e4m3",
    r"wgmma\.commit_group\.sync\.aligned;",
    r"wgmma\.wait_group\.sync\.aligned 1;",
    r"cp\.async\.cg\.shared\.global \[%r\d+\], \[%rd\d+\], 16, %r\d+;",
    r"cp\.async\.cg\.shared\.global\.L2::cache_hint\.L2::256B \[%r\d+\], \[%rd\d+\], 16, %r\d+, %rd\d+;",
    r"createpolicy\.fractional\.L2::evict_first\.b64 %rd\d+, 1\.0;",
    r"cp\.async\.ca\.shared\.global \[%r\d+\], \[%rd\d+\], 4, %r\d+;",
    r"cvt\.rn\.f16x2\.e4m3x2 %r\d+, l; cvt\.rn\.f16x2\.e4m3x2 %r\d+, h;",
    r"ld\.shared\.f32 %f\d+, \[%r\d+\];",
    r"st\.global\.v4\.f32 \[%rd\d+\], \{(%f\d+, ){3}%f\d+\};",
    r"fence\.acq_rel\.gpu;",
    r"cp\.async\.commit_group;",
    r"cp\.async\.wait_group 2;",
    r"ldmatrix\.sync\.aligned\.m8n8\.x4\.shared\.b16 \{(%r\d+, ){3}%r\d+\}, \[%r\d+\];",
    r"stmatrix\.sync\.aligned\.m8n8\.x4\.shared\.b16 \[%r\d+\], \{(%r\d+, ){3}%r\d+\};",
    r"ld\.shared\.f32 %f\d+, \[%r\d+\];",
    r"st\.shared\.f32 \[%r\d+\], %f\d+;",
    r"mov\.b32 %r\d+, %r\d+;",
    r"stmatrix\.sync\.aligned\.m8n8\.x4\.trans\.shared\.b16 \[%r\d+\], \{(%r\d+, ){3}%r\d+\};",
    r"stmatrix\.sync\.aligned\.m8n8\.x2\.trans\.shared\.b16 \[%r\d+\], \{%r\d+, %r\d+\};",
    r"st\.shared\.v4\.u32 \[%r\d+\], \{(%r\d+, ){3}%r\d+\};",
    r"ld\.shared\.v4\.u32 \{(%r\d+, ){3}%r\d+\}, \[%r\d+\];",
    r"st\.global\.v4\.u32 \[%rd\d+\], \{(%r\d+, ){3}%r\d+\};",
    r"@inside ld\.global\.v4\.u32 \{(%r\d+, ){3}%r\d+\}, \[%rd\d+\];",
    r"st\.global\.u32 \[%rd\d+\], %r\d+;",
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16\.f16\.f32 \{(%f\d+, ){3}%f\d+\},"
    r" \{(%r\d+, ){3}%r\d+\}, \{%r\d+, %r\d+\}, \{(%f\d+, ){3}%f\d+\};",
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32",
    r"mma\.sync\.aligned\.m16n8k8\.row\.col\.f32\.f16\.f16\.f32 \{(%f\d+, ){3}%f\d+\}, \{%r\d+, %r\d+\},"
    r" \{%r\d+\},",
    r"cvt\.rn\.bf16x2\.f32 %r\d+, %f\d+, %f\d+;",
    r"cvt\.rn\.f16\.f32 l, %f\d+; cvt\.rn\.f16\.f32 h, %f\d+; mov\.b32 %r\d+, \{l, h\};",
    r"shl\.b32 t, %r\d+, 16; mov\.b32 %f\d+, t; and\.b32 t, %r\d+, 0xffff0000; mov\.b32 %f\d+, t;",
    r"mov\.b32 \{l, h\}, %r\d+; cvt\.f32\.f16 %f\d+, l; cvt\.f32\.f16 %f\d+, h;",
    r"mov\.b32 %f\d+, %r\d+;",
    r"mov\.b32 %r\d+, %f\d+;",
    r"ex2\.approx\.ftz\.f32 %f\d+, %f\d+;",
    r"rcp\.approx\.ftz\.f32 %f\d+, %f\d+;",
    r"div\.u32 %r\d+, %r\d+, %r\d+;",
    r"abs\.f32 t, %f\d+; max\.f32 %f\d+, %f\d+, t;",
    r"cvt\.rn\.satfinite\.e4m3x2\.f32 t, %f\d+, %f\d+; cvt\.u32\.u16 %r\d+, t;",
    r"cvt\.rn\.f16x2\.e4m3x2 halves, pair;",
    r"st\.global\.v2\.u32 \[%rd\d+\], \{%r\d+, %r\d+\};",
    r"@inside ld\.global\.v4\.f32 \{(%f\d+, ){3}%f\d+\}, \[%rd\d+\];",
    r"@inside ld\.global\.f32 %f\d+, \[%rd\d+\];",
    r"mov\.u32 %r\d+, %smid;",
    r"mov\.u32 %r\d+, %tid\.x;",
    r"mov\.u64 %rd\d+, %globaltimer;",
    r"@inside ld\.global\.u32 %r\d+, \[%rd\d+\];",
    r"@inside ld\.global\.u8 %r\d+, \[%rd\d+\];",
)

# What neither reads nor orders memory: the compiler may move it. Everything else must not be moved.
MOVABLE = {
    "shared_address", "cluster_rank", "mapa", "div_u32", "pack_bf16", "pack_f16", "mma", "tid_x",
    "unpack_bf16", "unpack_f16", "as_float32", "as_word", "ex2_approx", "rcp_approx",
    "max_magnitude", "pack_e4m3", "unpack_e4m3", "e4m3_to_f16", "evict_first", "late",
}  # fmt: skip


@pytest.fixture(scope="module")
def ptx():
    environment = os.environ | {"GEMM_LESSONS_DEVICE": "compile", "NUMBA_ENABLE_CUDASIM": "0"}
    script = Path(__file__).with_name("emit.py")
    run = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode == 3:
        pytest.skip(f"NOT RUN: {run.stdout.strip()}")
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.parametrize("pattern", EMITTED)
def test_the_instruction_is_emitted(ptx, pattern):
    assert re.search(pattern, ptx), pattern


def test_pairs_are_packed_in_order(ptx):
    order = re.search(r"cvt\.rn\.bf16x2\.f32 %r\d+, (%f\d+), (%f\d+);", ptx)
    other = re.search(r"cvt\.rn\.f16\.f32 l, (%f\d+); cvt\.rn\.f16\.f32 h, (%f\d+);", ptx)
    assert order.groups() == other.groups()[::-1], "bf16x2 names the high half first"
    smallest = re.search(r"max\.f32 (%f\d+), .*?\.e4m3x2\.f32 t, (%f\d+), (%f\d+);", ptx, re.DOTALL)
    assert smallest[1] == smallest[3], "e4m3x2 names the high one first, too"


def instructions():
    """(name, memory) of every decorated function in gemm_lessons.ptx."""
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "instruction":
                        options = {keyword.arg: keyword.value for keyword in decorator.keywords}
                        memory = ast.literal_eval(options["memory"]) if "memory" in options else True
                        yield node, memory


def test_only_arithmetic_may_be_moved():
    assert {node.name for node, memory in instructions() if not memory} == MOVABLE


def test_every_instruction_says_where_it_is_defined():
    silent = [
        node.name
        for node, _ in instructions()
        if not re.search(r"PTX (manual|ISA)", ast.get_docstring(node) or "")
    ]
    assert silent == []
