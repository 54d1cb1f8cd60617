"""Compile a kernel with every instruction in it and print its PTX.

GEMM_LESSONS_DEVICE=compile python tests/ptx/emit.py
"""

import sys

from numba import cuda, float32, uint8, uint32

from gemm_lessons import compile_only
from gemm_lessons.ptx.bits import as_float32, as_word
from gemm_lessons.ptx.compiling import whole_kernel
from gemm_lessons.ptx.convert import e4m3_to_f16, max_magnitude, pack_e4m3, unpack_e4m3
from gemm_lessons.ptx.cp_async import (
    cp_async_4,
    cp_async_16,
    cp_async_16_stream,
    cp_async_commit,
    cp_async_wait,
    evict_first,
)
from gemm_lessons.ptx.global_memory import (
    ld_global_f32,
    ld_global_u8,
    ld_global_u32,
    ld_global_v4_f32,
    st_global_v2,
    st_global_v4_f32,
)
from gemm_lessons.ptx.integer import div_u32, late
from gemm_lessons.ptx.matrix import (
    ldmatrix_x4,
    mma_m16n8k8,
    mma_m16n8k16,
    pack_bf16,
    pack_f16,
    stmatrix_x2_trans,
    stmatrix_x4,
    stmatrix_x4_trans,
    unpack_bf16,
    unpack_f16,
)
from gemm_lessons.ptx.mbarrier import (
    fence_mbarrier_init,
    mbarrier_arrive,
    mbarrier_arrive_cluster,
    mbarrier_arrive_expect_tx,
    mbarrier_init,
    mbarrier_try_wait,
)
from gemm_lessons.ptx.shared import (
    ld_global_v4,
    ld_shared_f32,
    ld_shared_v4,
    shared_address,
    st_global_u32,
    st_global_v4,
    st_shared_f32,
    st_shared_v4,
)
from gemm_lessons.ptx.special_functions import ex2_approx, rcp_approx
from gemm_lessons.ptx.special_registers import globaltimer, smid, tid_x
from gemm_lessons.ptx.sync import (
    bar_sync,
    cluster_rank,
    cluster_sync,
    fence_acq_rel_gpu,
    fence_proxy_async,
    mapa,
    setmaxnreg_dec,
    setmaxnreg_inc,
)
from gemm_lessons.ptx.tma import (
    cp_async_bulk,
    fence_proxy_tensormap,
    prefetch_tensormap,
    tma_load_2d,
    tma_load_2d_multicast,
    tma_prefetch_2d,
    tma_store_2d,
    tma_store_commit,
    tma_store_wait,
    tma_store_wait_read,
)
from gemm_lessons.ptx.wgmma import (
    wgmma_bf16,
    wgmma_commit,
    wgmma_e4m3,
    wgmma_e4m3_begin,
    wgmma_fence,
    wgmma_wait,
)

wait_copies, wait_stores, wait_reads = cp_async_wait[2], tma_store_wait[0], tma_store_wait_read[1]
wait_products = wgmma_wait[1]
give, take = setmaxnreg_dec[40], setmaxnreg_inc[232]
mma_f16, mma_bf16, mma_turing = mma_m16n8k16["float16"], mma_m16n8k16["bfloat16"], mma_m16n8k8["float16"]
wgmma_8, wgmma_256 = wgmma_bf16[8], wgmma_bf16[256]
fp8_begin, fp8_add = wgmma_e4m3_begin[128], wgmma_e4m3[128]


@whole_kernel(384)
def every_instruction(address, words, sums):
    raw = cuda.shared.array(0, uint8)
    acc = cuda.local.array(128, float32)
    there = shared_address(raw)
    mbarrier_init(there, 3)
    fence_mbarrier_init()
    mbarrier_arrive(there)
    mbarrier_arrive_expect_tx(there, 512)
    while mbarrier_try_wait(there, 1) == 0:
        pass
    mbarrier_arrive_cluster(mapa(there, cluster_rank()))
    cluster_sync()
    fence_proxy_tensormap(address)
    prefetch_tensormap(address)
    tma_prefetch_2d(address, 64, 8)
    tma_load_2d(there + 1024, address, 64, 8, there)
    cp_async_bulk(there + 1024, address, 512, there)
    tma_load_2d_multicast(there + 1024, address, 64, 8, there, 3)
    tma_store_2d(address, 64, 8, there + 1024)
    tma_store_commit()
    wait_reads()
    wait_stores()
    fence_proxy_async()
    bar_sync(1, 128)
    give()
    take()
    wgmma_fence()
    wgmma_8(acc, 5, 6, 0)
    wgmma_256(acc, 5, 6, 1)
    fp8_begin(acc, 5, 6)
    fp8_add(acc, 5, 6, 1)
    wgmma_commit()
    wait_products()
    cp_async_16(there, address, 16)
    cp_async_16_stream(there, address, 16, evict_first())
    cp_async_4(there, address, 4)
    cp_async_commit()
    wait_copies()
    a, b, c, d = ldmatrix_x4(there)
    stmatrix_x4_trans(there, a, b, c, d)
    stmatrix_x2_trans(there, a, b)
    stmatrix_x4(there, a, b, c, d)
    st_shared_f32(there, ld_shared_f32(there))
    st_shared_v4(there, a, b, c, d)
    a, b, c, d = ld_shared_v4(there)
    st_global_v4(address, a, b, c, d)
    a, b, c, d = ld_global_v4(address, words[0])
    st_global_u32(address, a)
    e, f, g, h = mma_f16(a, b, c, d, a, b, acc[0], acc[1], acc[2], acc[3])
    e, f, g, h = mma_bf16(a, b, c, d, a, b, e, f, g, h)
    e, f, g, h = mma_turing(a, b, c, e, f, g, h)
    sums[0], sums[1], sums[2], sums[3] = e, f, g, h
    words[1] = pack_bf16(e, f)
    words[2] = pack_f16(e, f)
    words[3] = div_u32(words[1], words[2])
    words[0] = late(words[3])
    low, high = unpack_bf16(a)
    sums[4], sums[5] = ex2_approx(low), rcp_approx(high)
    sums[6], sums[7] = unpack_f16(a)
    words[4] = as_word(as_float32(b) + low)
    words[5] = pack_e4m3(max_magnitude(e, f), g)
    sums[8], sums[9] = unpack_e4m3(words[5])
    words[6], words[7] = e4m3_to_f16(words[5])
    st_global_v4_f32(address, ld_shared_f32(there), e, f, g)
    fence_acq_rel_gpu()
    e, f, g, h = ld_global_v4_f32(address, words[5])
    sums[10], sums[11] = e + f + g + h, ld_global_f32(address, words[4])
    words[8], words[9] = smid(), tid_x()
    words[10] = uint32(globaltimer())
    st_global_v2(address, ld_global_u32(address, words[5]), ld_global_u8(address, words[4]))


def main() -> int:
    """Print the PTX; exit code 3 and a sentence if nothing can compile."""
    reason = compile_only.missing()
    if reason:
        print(reason)
        return 3
    signature = "void(int64, uint32[::1], float32[::1])"
    print(compile_only.compile_kernel(every_instruction, signature, (9, 0)).ptx)
    return 0


if __name__ == "__main__":
    sys.exit(main())
