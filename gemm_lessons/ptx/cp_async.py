"""cp.async: each thread asks for 4 or 16 bytes to be copied from global to shared memory, asynchronously."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.sim.registry import Context, InstructionError

PIECE_BYTES, WORD_BYTES = 16, 4
EVICT_FIRST = 0xE71C7  # stands for the policy in the simulator
MOST_WAITING = 16


class _Copies:
    """One thread's copies: the open group, and the closed ones, oldest first."""

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.groups: list[list[Any]] = []


def _copies(ctx: Context) -> _Copies:
    copies: _Copies = ctx.state("cp.async", _Copies, "thread")
    return copies


def _start(ctx: Context, destination: Any, source: Any, num_bytes: Any, piece_bytes: int) -> None:
    if num_bytes not in (0, piece_bytes):
        raise InstructionError(f"these kernels copy {piece_bytes} bytes or write {piece_bytes} zeros.")
    target, start, wanted = int(destination), int(source), int(num_bytes)
    num_words = piece_bytes // 4

    def copy(agent: Context) -> None:
        content = agent.load(start, np.uint32, num_words) if wanted else np.zeros(num_words, np.uint32)
        agent.store(target, content)

    _copies(ctx).open.append(ctx.later(copy, "the asynchronous copy"))


@instruction("cp.async.cg.shared.global [$0], [$1], 16, $2;", "r,l,r", "void(uint32,int64,int32)")
def cp_async_16(ctx: Any, destination: Any, source: Any, num_bytes: Any) -> None:
    """Start copying 16 bytes, of which only the first `num_bytes` are read; the others become zero.

    Any thread; compute capability 8.0 on.  PTX manual: cp.async.
    """
    _start(ctx, destination, source, num_bytes, PIECE_BYTES)


@instruction("createpolicy.fractional.L2::evict_first.b64 $0, 1.0;", "=l", "int64()", memory=False)
def evict_first(ctx: Any) -> int:
    """A policy for the L2 cache: what is read under it is the first to be thrown out.

    Any thread; compute capability 8.0 on.  In the simulator, which has no L2, it is only a number that
    the instructions with a hint insist on.  PTX manual: createpolicy.
    """
    return EVICT_FIRST


@instruction(
    "cp.async.cg.shared.global.L2::cache_hint.L2::256B [$0], [$1], 16, $2, $3;",
    "r,l,r,l",
    "void(uint32,int64,int32,int64)",
)
def cp_async_16_stream(ctx: Any, destination: Any, source: Any, num_bytes: Any, policy: Any) -> None:
    """`cp_async_16` for what is read once, in order: L2 fetches the 256 bytes around it, under a policy.

    DRAM is read in larger bursts so; `evict_first` makes the policy.  Any thread; compute capability 8.0
    on.  PTX manual: cp.async.
    """
    if policy != EVICT_FIRST:
        raise InstructionError("the policy must come from createpolicy.")
    _start(ctx, destination, source, num_bytes, PIECE_BYTES)


@instruction("cp.async.ca.shared.global [$0], [$1], 4, $2;", "r,l,r", "void(uint32,int64,int32)")
def cp_async_4(ctx: Any, destination: Any, source: Any, num_bytes: Any) -> None:
    """Start copying 4 bytes, or writing 4 zeros where `num_bytes` is 0.

    Any thread; compute capability 8.0 on.  PTX manual: cp.async.
    """
    _start(ctx, destination, source, num_bytes, WORD_BYTES)


@instruction("cp.async.commit_group;", "", "void()")
def cp_async_commit(ctx: Any) -> None:
    """Close the group of this thread's copies since the last one; it may be empty.

    PTX manual: cp.async.commit_group.
    """
    copies = _copies(ctx)
    copies.groups.append(copies.open)
    copies.open = []


def _wait(most: int) -> Any:
    @instruction(f"cp.async.wait_group {most};", "", "void()")
    def cp_async_wait(ctx: Any) -> None:
        """Wait until at most so many of this thread's groups are unfinished.

        It says nothing about other threads' copies: a barrier does.  PTX manual: cp.async.wait_group.
        """
        groups = _copies(ctx).groups
        while len(groups) > most:
            for copy in groups.pop(0):
                ctx.join(copy, "an asynchronous copy")

    return cp_async_wait


#: cp_async_wait[n](): at most n groups are unfinished.
cp_async_wait = {n: _wait(n) for n in range(MOST_WAITING)}
