"""Executes registered instructions, and gives their meanings a checked view of the machine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gemm_lessons.sim import collectives
from gemm_lessons.sim.arrays import KernelArray
from gemm_lessons.sim.memory import GLOBAL, Root
from gemm_lessons.sim.recorder import (
    ADDRESS_SHIFT,
    ATOMIC,
    READ,
    REWRITE,
    SITE_SHIFT,
    SIZE_CODES,
    WRITE,
    access_key,
)
from gemm_lessons.sim.records import dtype_of
from gemm_lessons.sim.registry import (
    SCOPE_SIZES,
    Completion,
    Context,
    Instruction,
    InstructionError,
    Reason,
    is_shared_address,
)
from gemm_lessons.sim.threads import Agent, Party, Thread

if TYPE_CHECKING:
    from gemm_lessons.sim.engine import Engine


def execute(engine: Engine, what: Instruction, args: tuple[Any, ...]) -> Any:
    """Run an instruction for the current thread."""
    outer, engine.at = engine.at, engine.spot(3)
    try:
        if what.scope == "thread":
            return what.meaning(_ThreadContext(engine, engine.cur), *args)
        here = engine.at
        engine.at = None

        def resolve(threads: list[Thread], calls: list[Any]) -> Sequence[Any]:
            lanes = [_ThreadContext(engine, t, at) for t, (at, _) in zip(threads, calls, strict=True)]
            lanes[0].lanes = lanes
            engine.at = here
            counted = engine.report.instructions
            counted[what.name] = counted.get(what.name, 0) + 1
            results = what.meaning(lanes[0], [call for _, call in calls])
            return [None] * len(lanes) if results is None else results

        required = _required(engine, what.scope)
        brought = (here, args)
        return collectives.meet(engine, what.name, required, brought, resolve, what.ordered)
    finally:
        engine.at = outer


def _required(engine: Engine, scope: str) -> list[Thread]:
    thread = engine.cur
    block = thread.block
    if scope == "block":
        return block.threads
    if scope == "cluster":
        return [t for peer in engine.cluster(block) for t in peer.threads]
    size = SCOPE_SIZES[scope]
    first = thread.linear // size * size
    lanes = block.threads[first : first + size]
    if len(lanes) < size:
        raise InstructionError(
            f"a {scope} has {size} threads, but the last one of this block has {len(lanes)}."
        )
    return lanes


class _ThreadContext(Context):
    """The machine as one thread, lane or agent sees it."""

    def __init__(self, engine: Engine, party: Party, at: Any = None) -> None:
        self._engine = engine
        self._party = party
        self._at = at
        block = party.block
        thread = party if isinstance(party, Thread) else block.threads[0]
        self.thread = thread.linear
        self.lane, self.warp = self.thread % 32, self.thread // 32
        self.block = block.linear
        self.thread_idx, self.block_idx = thread.index, block.index
        self.block_dim, self.grid_dim = engine.block, engine.grid
        self.cluster_rank, self.sm = block.cluster_rank, block.sm
        self.cluster_size = engine.cluster_size
        self.lanes: Sequence[Context] = (self,)

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """Accesses are this party's, whoever's greenlet runs."""
        engine = self._engine
        party, at = engine.party, engine.at
        if party is not self._party:
            engine.attribute(self._party)
        if self._at is not None:
            engine.at = self._at
        try:
            yield
        finally:
            engine.at = at
            if party is not self._party and party is not None:
                engine.attribute(party)

    def ticks(self) -> int:
        """The virtual time of this thread's block, in accesses of single threads."""
        return int(self._engine.now(self._party.block) * 32)

    # --- addresses -------------------------------------------------------------------------------

    def address(self, array: Any, index: Any = 0) -> int:
        if not isinstance(array, KernelArray):
            if not isinstance(array, np.ndarray):
                raise InstructionError(f"{type(array).__name__} is not an array")
            return self._engine.address_of(array) + _offset(array, index)
        if array.root.space == "local":
            raise InstructionError("a local array lives in registers and has no address")
        return array.root.base + array.offset + _offset(array.raw, index)

    def element(self, address: int) -> tuple[Any, int]:
        root, offset = self._find(address, 1)
        return root.data, offset

    def _find(self, address: int, size: int) -> tuple[Root, int]:
        address = int(address)
        if is_shared_address(address):
            block = self._engine.block_of_address(self._party.block, address)
            root, offset = block.shared.find(address)
        else:
            owner, _ = GLOBAL.find(address)
            root = self._engine.global_root(owner)[0]
            offset = address - root.base
        if root.data is None:
            raise InstructionError("the array at this address is not contiguous")
        if offset + size > root.size:
            raise InstructionError(
                f"{size} bytes at {address:#x} reach {offset + size - root.size} bytes past the "
                f"end of the {root.space} memory there ({root.size} bytes)"
            )
        return root, offset

    # --- memory ----------------------------------------------------------------------------------

    def load(self, address: int, dtype: Any, count: int = 1, *, align: int | None = None) -> Any:
        kind = dtype_of(dtype)
        size = kind.itemsize * count
        _check_alignment(address, size, align)
        root, offset = self._find(address, size)
        with self._acting():
            self._log(root, offset, size, kind.itemsize, READ)
            if root.init is not None and root.init.find(0, offset, offset + size) >= 0:
                first = root.init.find(0, offset, offset + size)
                self._engine.unwritten_bytes(root, first)
        return _bytes(root)[offset : offset + size].copy().view(kind)

    def store(self, address: int, values: Any, dtype: Any = None, *, align: int | None = None) -> None:
        data = np.ascontiguousarray(values, None if dtype is None else dtype_of(dtype)).reshape(-1)
        _check_alignment(address, data.nbytes, align)
        root, offset = self._find(address, data.nbytes)
        end = offset + data.nbytes
        target = _bytes(root)[offset:end]
        new = data.view(np.uint8)
        same = bool((target == new).all())
        if root.init is not None:
            same = same and root.init.find(0, offset, end) < 0
            root.init[offset:end] = b"\1" * data.nbytes
        target[:] = new
        with self._acting():
            self._log(root, offset, data.nbytes, data.itemsize, REWRITE if same else WRITE)

    def atomic(self, address: int, dtype: Any, update: Callable[[Any], Any]) -> Any:
        kind = dtype_of(dtype)
        _check_alignment(address, kind.itemsize, None)
        root, offset = self._find(address, kind.itemsize)
        cell = _bytes(root)[offset : offset + kind.itemsize].view(kind)
        with self._acting():
            self._log(root, offset, kind.itemsize, kind.itemsize, ATOMIC)
            if self._engine.checked:
                self._engine.stored(root.log_base + offset)
                self._engine.observed(root.log_base + offset)
        old = cell[0]
        cell[0] = update(old)
        if root.init is not None:
            root.init[offset : offset + kind.itemsize] = b"\1" * kind.itemsize
        return old

    def _log(self, root: Root, offset: int, size: int, itemsize: int, kind: int) -> None:
        """One entry for up to 16 bytes, as one request of the hardware; else several."""
        engine = self._engine
        if not engine.checked:
            return
        code, lasti = engine.spot()
        recorder = engine.recorder
        if code is not recorder.code:
            recorder.enter(code)
        site = recorder.site + (lasti << (SITE_SHIFT - 1)) + kind
        width = next(w for w in (16, 8, 4, 2, 1) if size % w == 0 and offset % w == 0)
        width = max(width, itemsize) if itemsize in SIZE_CODES else width
        root.note_size(width)
        start = access_key(root.log_base + offset, width) + site
        step = width << ADDRESS_SHIFT
        for number in range(size // width):
            recorder.append(start + number * step)

    def read(self, array: Any, index: Any = None) -> Any:
        if not isinstance(array, KernelArray):
            return array.copy() if index is None else array[index]
        with self._acting():
            if index is not None:
                return array.get(index)
            return np.array([array.get(i) for i in np.ndindex(array.shape)], array.dtype).reshape(array.shape)

    def write(self, array: Any, values: Any, index: Any = None) -> None:
        if not isinstance(array, KernelArray):
            array[... if index is None else index] = values
            return
        with self._acting():
            if index is not None:
                array.set(index, values)
                return
            values = np.broadcast_to(np.asarray(values), array.shape)
            for i in np.ndindex(array.shape):
                array.set(i, values[i])

    def state(self, key: Hashable, factory: Callable[[], Any], space: str = "block") -> Any:
        block = self._party.block
        if space == "warp":
            key, table = (key, self.warp), block.states
        elif space == "thread":
            table = block.threads[self.thread].states
        else:
            table = block.states if space == "block" else self._engine.states
        if key not in table:
            table[key] = factory()
        return table[key]

    # --- order -----------------------------------------------------------------------------------

    def release(self, key: Hashable, *, own: bool = False) -> None:
        self._engine.release(self._party, key, own=own)

    def acquire(self, key: Hashable) -> None:
        self._engine.acquire(self._party, key)

    def fence(self, scope: str = "device") -> None:
        if scope == "proxy.async":
            self._engine.fence_proxy(self._party)
        else:
            self._engine.fence(self._party, block_only=scope == "block")

    # --- time ----------------------------------------------------------------------------------

    def wait_until(self, predicate: Callable[[], bool], reason: Reason) -> None:
        self._engine.wait_until(predicate, reason)

    def later(
        self, action: Callable[[Context], None], agent: str = "async", *, owed: bool = False
    ) -> Completion:
        with self._acting():
            return self._engine.later(
                lambda party: action(_ThreadContext(self._engine, party, party.at)), agent, owed
            )

    def join(self, completion: Completion, reason: Reason = "asynchronous work") -> None:
        if not isinstance(completion, Agent):
            raise InstructionError("join() takes what later() returned")
        self.wait_until(lambda: completion.done, reason)
        completion.block.owed.pop(completion, None)
        self._engine.learn(self._party, completion.published())


def _bytes(root: Root) -> np.ndarray:
    if root.data is None:
        raise InstructionError("the array at this address is not contiguous")
    return root.data


def _offset(raw: np.ndarray, index: Any) -> int:
    steps = index if isinstance(index, tuple) else (index,)
    if len(steps) == 1 and raw.ndim != 1:
        if not raw.flags.c_contiguous and raw.size:
            raise InstructionError("a flat index needs a contiguous array")
        return int(steps[0]) * raw.itemsize
    return sum(int(i) * s for i, s in zip(steps, raw.strides, strict=True))


def _check_alignment(address: int, size: int, align: int | None) -> None:
    need = align if align is not None else next(w for w in (16, 8, 4, 2, 1) if size % w == 0)
    if int(address) % need:
        raise InstructionError(
            f"address {int(address):#x} is not a multiple of {need}, as an access of {size} bytes "
            "needs: on a GPU this is the error 'misaligned address'"
        )
