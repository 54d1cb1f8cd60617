"""The tensor memory accelerator: one thread asks, a copy engine moves a whole tile.

A tensor map (see `gemm_lessons.tensor_map`) describes the tensor and the box; an instruction names the
box's first element, columns before rows.  What lies outside the tensor reads as zero and is not written.
"""

from gemm_lessons.ptx.instruction import instruction


@instruction("prefetch.tensormap [$0];", "l", "void(uint64)")
def prefetch_tensormap(ctx, tensor_map):
    """Bring a tensor map into the cache before its first use; one thread.

    PTX manual: prefetch.
    """


@instruction(
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$2, $3}], [$4];",
    "r,l,r,r,r",
    "void(uint32,uint64,int32,int32,uint32)",
)
def tma_load_2d(ctx, destination, tensor_map, column, row, barrier):
    """Copy a box from global to shared memory and count its bytes on a barrier; one thread.

    PTX manual: cp.async.bulk.tensor.
    """


@instruction(
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
    " [$0], [$1, {$2, $3}], [$4], $5;",
    "r,l,r,r,r,h",
    "void(uint32,uint64,int32,int32,uint32,uint16)",
)
def tma_load_2d_multicast(ctx, destination, tensor_map, column, row, barrier, blocks):
    """Copy a box to the same place in several blocks of the cluster; one thread of one block.

    Bit r of `blocks` names the block of rank r.  Each of them counts the bytes on its own barrier.
    PTX manual: cp.async.bulk.tensor.
    """


@instruction(
    "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [$0, {$1, $2}];", "l,r,r", "void(uint64,int32,int32)"
)
def tma_prefetch_2d(ctx, tensor_map, column, row):
    """Bring a box from global memory into L2; one thread.

    PTX manual: cp.async.bulk.prefetch.tensor.
    """


@instruction(
    "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [$0, {$1, $2}], [$3];",
    "l,r,r,r",
    "void(uint64,int32,int32,uint32)",
)
def tma_store_2d(ctx, tensor_map, column, row, source):
    """Copy a box from shared to global memory; one thread, after `fence_proxy_async` by the writers.

    PTX manual: cp.async.bulk.tensor.
    """


@instruction("cp.async.bulk.commit_group;", "", "void()")
def tma_store_commit(ctx):
    """Close the group of this thread's stores since the last one.

    PTX manual: cp.async.bulk.commit_group.
    """


def _wait(template, number):
    @instruction(template.format(number), "", "void()")
    def tma_store_wait(ctx):
        """Wait until at most so many of this thread's groups of stores are unfinished.

        PTX manual: cp.async.bulk.wait_group.
        """

    return tma_store_wait


#: tma_store_wait_read[n](): at most n groups still have to read their shared memory.
tma_store_wait_read = {n: _wait("cp.async.bulk.wait_group.read {};", n) for n in range(4)}
#: tma_store_wait[n](): at most n groups are unfinished, their writes included.
tma_store_wait = {n: _wait("cp.async.bulk.wait_group {};", n) for n in range(1)}
