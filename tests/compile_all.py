"""Compile every kernel of the ladder for every generation of GPUs and print what ptxas says, as JSON lines.

Runs in a process of its own, because Numba's mode is fixed at import:

    GEMM_LESSONS_DEVICE=compile python tests/compile_all.py core     # the newest, and steps for the oldest
    GEMM_LESSONS_DEVICE=compile python tests/compile_all.py rest     # the others, and more variants
"""

import json
import sys
from dataclasses import replace

from gemm_lessons import compile_only, quantize_kernels
from gemm_lessons.cuda_tools import find_tool
from gemm_lessons.moe import (
    activation,
    backward_kernels,
    dgrad,
    experts,
    fused,
    permute,
    project,
    routed,
    router_kernels,
    swiglu_epilogue,
    wgrad,
)
from gemm_lessons.moe.router import DeepSeek, TopK, TopP
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.steps import (
    STEPS,
    decode,
    hopper,
    hopper_fp8,
    masked,
    padded,
    persistent,
    tensor_core,
    tiled,
    tiled_fp8,
)

COMPUTE_CAPABILITIES = ((7, 5), (8, 0), (9, 0))
OLDEST, NEWEST = COMPUTE_CAPABILITIES[0], COMPUTE_CAPABILITIES[-1]
# Variants of kernels whose compilation takes many seconds, and that differ in constants only.
VARIANTS = (
    "hopper, 128 tokens",
    "hopper, 64 tokens",
    "hopper, static",
    "hopper, SwiGLU, BM = 256",
    "hopper, SwiGLU, BM = 128",
    "hopper, SwiGLU, BM = 64",
    "fp8 on Hopper, BM = 256, whole rows",
    "fp8 on Hopper, BM = 128",
    "fp8 on Hopper, BM = 128, whole rows",
    "fp8 on Hopper, BM = 64",
    "fp8 on Hopper, BM = 64, whole rows",
    "decode, bfloat16, 32 tokens",
    "decode, bfloat16, 64 tokens",
    "decode, float16, 16 tokens",
    "decode, float8_e4m3fn, 32 tokens",
    "decode, float8_e4m3fn, 64 tokens",
    "fused, top-2 of 8",
)
DECODED = (  # dtype, tokens of an expert on average, compute capability, shared memory of a block
    *(("bfloat16", tokens, (9, 0), 232448) for tokens in (4, 8, 64)),
    *(("float8_e4m3fn", tokens, (9, 0), 232448) for tokens in (4, 8, 64)),
    ("float16", 4, (9, 0), 232448),
    ("bfloat16", 64, (8, 0), 166912),
    ("float8_e4m3fn", 4, (8, 9), 101376),
)
TOKENS = {"hopper": 256, "hopper, 128 tokens": 64, "hopper, 64 tokens": 8}  # of an expert, on average


def kernels():
    """Every kernel, and every variant that a problem can ask for: (name, kernel, signature)."""
    for name, module in STEPS.items():
        yield name, module.make_kernel(module.CONFIG), module.SIGNATURE
    for module in (tiled, persistent, masked):
        name = f"{module.__name__.rsplit('.', 1)[1]}, scalar loads"
        yield name, module.make_kernel(replace(module.CONFIG, vector_loads=False)), module.SIGNATURE
    traced = replace(persistent.CONFIG, trace=True)
    yield "persistent, traced", persistent.make_kernel(traced), persistent.SIGNATURE
    linear = replace(STEPS["concatenated"].CONFIG, search="linear")
    yield "concatenated, linear", STEPS["concatenated"].make_kernel(linear), STEPS["concatenated"].SIGNATURE
    yield "pack_rows", padded.pack_rows, padded.PACK_SIGNATURE
    yield "unpack_rows", padded.unpack_rows, padded.UNPACK_SIGNATURE
    yield "place_rows", masked.place_rows, masked.PLACE_SIGNATURE
    for module in (dgrad, wgrad):
        name = module.__name__.rsplit(".", 1)[1]
        yield name, module.make_kernel(module.CONFIG), module.SIGNATURE
        scalar = replace(module.CONFIG, vector_loads=False)
        yield f"{name}, scalar loads", module.make_kernel(scalar), module.SIGNATURE
    yield "combine_backward", backward_kernels.combine_backward_kernel, backward_kernels.COMBINE_SIGNATURE
    yield "swiglu_backward", backward_kernels.swiglu_backward_kernel, backward_kernels.SWIGLU_SIGNATURE
    yield "sum_rows", backward_kernels.sum_rows_kernel, backward_kernels.SUM_SIGNATURE
    for weighted in (False, True):
        name = "swiglu, weighted" if weighted else "swiglu"
        kernel = activation.make_kernel("float32", activation.PIECE, weighted)
        yield name, kernel, activation.SIGNATURES["float32"]
    for indexed in (False, True):
        for vector_loads in (False, True):
            name = f"routed{', indexed' if indexed else ''}{'' if vector_loads else ', scalar loads'}"
            kernel = routed.make_kernel(replace(tiled.CONFIG, vector_loads=vector_loads), indexed)
            yield name, kernel, routed.SIGNATURE
    yield "count_rows", experts.count_rows, experts.COUNT_SIGNATURE
    for renormalised in (False, True):
        name = f"router_backward{', renormalised' if renormalised else ''}"
        kernel = backward_kernels.make_router_backward(renormalised)
        yield name, kernel, backward_kernels.ROUTER_SIGNATURE


def moe_kernels():
    """Routers and permutation: (name, kernel, signature)."""
    floats, ints, flat = "float32[:, ::1]", "int32[:, ::1]", "int32[::1]"
    routers = {"top-2 of 8": (TopK(2), 8), "top-p": (TopP(), 8), "DeepSeek-V3": (DeepSeek(), 256)}
    for name, (router, num_experts) in (routers | {"top-8 of 1024": (TopK(8), 1024)}).items():
        kernel = router_kernels.make_choose(router_kernels.config_of(router, num_experts))
        yield f"choose, {name}", kernel, f"void({floats}, float32[::1], {ints}, {floats})"
    yield "score", router_kernels.make_score(64), f"void({floats}, {floats}, {ints}, {floats})"
    yield "select", router_kernels.make_select(512), f"void({floats}, int32, {ints}, {ints}, {floats})"
    drop = f"void({flat}, {flat}, int32, {flat}, {flat}, float32[::1])"
    yield "drop", router_kernels.make_drop(512), drop
    rows = f"void({floats}, float32[::1], int32, {floats})"
    yield "balance_rows", router_kernels.make_balance_rows(64, 128), rows
    yield "balance_rows, z", router_kernels.make_balance_rows(8, 128, with_z=True), rows
    losses = f"void({floats}, {flat}, float32[::1])"
    yield "losses", router_kernels.make_losses(64, 128), losses
    columns = f"void({floats}, int32, float32[::1], float32[::1])"
    yield "balance_columns", router_kernels.balance_columns, columns
    yield "update_bias", router_kernels.update_bias_kernel, f"void({flat}, float32, float32[::1])"
    place = permute.Config(256, 8)
    yield "count", permute.make_count(place), f"void({flat}, int32, {ints}, {flat})"
    yield "scan", permute.make_scan(place), f"void(int32, int32, {ints}, {flat}, {flat})"
    yield "place", permute.make_place(place), f"void({flat}, int32, {ints}, {flat}, int32, {flat}, {flat})"


def row_kernels():
    """What moves whole rows: (name, kernel, signature, compute capability)."""
    floats, ints, flat = "float32[:, ::1]", "int32[:, ::1]", "int32[::1]"
    for dtype, element in (("float32", "uint32"), ("float16", "uint16"), ("bfloat16", "uint16")):
        for vector in (True, False):
            config = permute.RowConfig(2, dtype, vector=vector)
            units = f"{'uint32' if vector else element}[:, ::1]"
            name = f"{dtype}{'' if vector else ', elements'}"
            # why not all: rounding to bfloat16 is an instruction of compute capability 8.0.
            for capability in COMPUTE_CAPABILITIES[dtype == "bfloat16" :]:
                gather = f"void({units}, {ints}, int32, {units})"
                yield f"gather, {name}", permute.make_gather(config), gather, capability
                by_row = f"void({units}, {flat}, {flat}, int32, {units})"
                yield f"gather by row, {name}", permute.make_gather_by_row(config), by_row, capability
                scatter = f"void({units}, {ints}, {floats}, {units}, int32, {units})"
                yield f"scatter, {name}", permute.make_scatter(config), scatter, capability
                kernel = project.make_project(dtype, vector)
                yield f"project, {name}", kernel, f"void({units}, {floats}, int32, {floats})", capability
    for tiles_n in (1, 2, 4, 8):
        kernel = project.make_project_on_tensor_cores(tiles_n)
        for capability in ((8, 0), (9, 0)):
            signature = f"void(uint32[:, ::1], {floats}, int32, {floats})"
            yield f"project, tensor cores, {8 * tiles_n} experts", kernel, signature, capability
    signature = (
        f"void(uint32[:, ::1], {floats}, int32, float32[::1], int32, int32, {floats}, {ints}, {floats},"
        f" {flat}, {ints}, {flat}, {flat}, {flat}, {flat}, uint32[:, ::1], {flat}, {flat})"
    )
    for name, router, num_experts in (("top-2 of 8", TopK(2), 8), ("DeepSeek-V3", DeepSeek(), 256)):
        place = permute.Config(num_experts, router.k, threads=384)
        config = fused.Config(router_kernels.config_of(router, num_experts), place, "bfloat16", vector=True)
        yield f"fused, {name}", fused.make_kernel(config), signature, (9, 0)


def tensor_kernels():
    """Every variant of the tensor-core steps: (name, kernel, signature, compute capability)."""
    for dtype in ("float16", "bfloat16"):
        kernel = tensor_core.make_kernel(replace(tensor_core.CONFIG, dtype=dtype))
        for compute_capability in ((8, 0), (9, 0)):
            yield f"tensor_core, {dtype}", kernel, tensor_core.SIGNATURE, compute_capability
    turing = tensor_core.make_kernel(tensor_core.TURING)
    yield "tensor_core, Turing", turing, tensor_core.SIGNATURE, (7, 5)
    for name, tokens in TOKENS.items():
        config = hopper.choose_config(GroupedProblem((tokens,), 128, 64, "bfloat16"))
        yield name, hopper.make_kernel(config), hopper.SIGNATURE, (9, 0)
    static = replace(hopper.CONFIG, stealing=False)
    yield "hopper, static", hopper.make_kernel(static), hopper.SIGNATURE, (9, 0)
    for dtype, tokens, capability, shared_bytes in DECODED:
        config = decode.choose_config(GroupedProblem((tokens,) * 4, 128, 128, dtype), shared_bytes)
        yield (
            f"decode, {dtype}, {config.tokens} tokens",
            decode.make_kernel(config),
            decode.SIGNATURE,
            capability,
        )
    for tokens in (256, 64, 8):
        config = hopper.choose_config(GroupedProblem((tokens,), 128, 64, "bfloat16"))
        kernel = hopper.make_kernel(config, swiglu_epilogue.make_store)
        yield f"hopper, SwiGLU, BM = {config.BM}", kernel, hopper.SIGNATURE, (9, 0)
    for weighted in (False, True):
        kernel = activation.make_kernel("bfloat16", activation.PIECE, weighted)
        for compute_capability in ((8, 0), (9, 0)):
            yield (
                f"swiglu, bfloat16{', weighted' if weighted else ''}",
                kernel,
                activation.SIGNATURES["bfloat16"],
                compute_capability,
            )


def quantizing_activations():
    """SwiGLU that quantises: (name, kernel, signature, compute capability)."""
    for capability in ((8, 0), (9, 0)):
        kernel = activation.make_quantizing_kernel(capability >= (8, 9))
        yield "swiglu, quantize", kernel, activation.QUANTIZING_SIGNATURE, capability


def fp8_kernels():
    """Every variant of the FP8 steps: (name, kernel, signature, compute capability)."""
    for capability in COMPUTE_CAPABILITIES:
        config = replace(tiled_fp8.CONFIG, instruction=capability >= (8, 9))
        rows, single = replace(config, whole_rows=True), replace(config, vector_loads=False)
        for name, one in (("", config), (", whole rows", rows), (", single bytes", single)):
            yield f"tiled_fp8{name}", tiled_fp8.make_kernel(one), tiled_fp8.SIGNATURE, capability
    for tokens in (256, 64, 8):
        config = hopper_fp8.choose_config(GroupedProblem((tokens,), 128, 64, "float8_e4m3fn"))
        for whole_rows in (False, True):
            kernel = hopper_fp8.make_kernel(replace(config, whole_rows=whole_rows))
            name = f"fp8 on Hopper, BM = {config.BM}{', whole rows' * whole_rows}"
            yield name, kernel, hopper_fp8.SIGNATURE, (9, 0)


def quantizing_kernels():
    """Every way to quantise, and to turn scales: (name, kernel, signature, compute capability)."""
    for capability in COMPUTE_CAPABILITIES:
        yield "turn_scales", quantize_kernels.turn_kernel, quantize_kernels.TURN_SIGNATURE, capability
    for word_bytes, word in quantize_kernels.WORDS.items():
        signature = quantize_kernels.SIGNATURE.format(word=word)
        rows_signature = quantize_kernels.ROWS_SIGNATURE.format(word=word)
        for capability in COMPUTE_CAPABILITIES:
            instruction = capability >= (8, 9)
            plain = quantize_kernels.make_plain_kernel(word_bytes, (1, 128))
            yield f"quantize, plain, {word}", plain, signature, capability
            tiles = quantize_kernels.make_tiles_kernel(word_bytes, instruction)
            yield f"quantize, tiles, {word}", tiles, signature, capability
            for whole_blocks in (True, False):
                rows = quantize_kernels.make_rows_kernel(word_bytes, instruction, whole_blocks)
                tail = "" if whole_blocks else ", tail"
                yield f"quantize, rows{tail}, {word}", rows, rows_signature, capability


def is_core(name, compute_capability):
    """Whether a kernel for a generation is compiled by `make test`, not by `make test-all` only."""
    if compute_capability == OLDEST:
        return name in STEPS or "Turing" in name
    return compute_capability == NEWEST and name not in VARIANTS


def main(part: str) -> int:
    """Print one line a kernel and compute capability; exit code 3 and a sentence if nothing can compile."""
    reason = compile_only.missing()
    if reason:
        print(reason)
        return 3
    work = [
        (*made, capability) for made in (*kernels(), *moe_kernels()) for capability in COMPUTE_CAPABILITIES
    ]
    work += tensor_kernels()
    work += row_kernels()
    work += fp8_kernels()
    work += quantizing_kernels()
    work += quantizing_activations()
    nvdisasm = find_tool("nvdisasm")
    for name, kernel, signature, compute_capability in work:
        if is_core(name, compute_capability) != (part == "core"):
            continue
        # The float type and the width of loads are the same for all generations: look at one.
        ptx = compute_capability == (9, 0) or "tensor_core" in name or "decode" in name
        compiled = compile_only.compile_kernel(kernel, signature, compute_capability, ptx=ptx)
        facts = {
            "kernel": name,
            "sm": "{}.{}".format(*compute_capability),
            "registers": compiled.registers,
            "spill_bytes": compiled.spill_bytes,
            "stack_bytes": compiled.stack_bytes,
            "warnings": compiled.warnings,
            "float64": ".f64" in compiled.ptx,
            "vector_loads": "ld.global.v4.f32" in compiled.ptx,
            "mma": compiled.ptx.count("mma.sync"),
            "streams": "L2::cache_hint.L2::256B" in compiled.ptx,
            "wgmma": compiled.ptx.count("wgmma.mma_async"),
            "e4m3": compiled.ptx.count(".f32.e4m3.e4m3"),
        }
        if nvdisasm and facts["wgmma"]:
            machine = compile_only.count_instructions(compiled.cubin, nvdisasm)
            facts |= {name: machine[name] for name in ("HGMMA", "QGMMA")}
        print(json.dumps(facts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
