"""Simulated memory: allocations, their addresses, and who may find them.

Addresses are of two kinds. A *kernel* address is what instructions see: 32 bits in the shared
window (the same numbers in every block), or 1 << 32 and more for global memory. A *log* address
is unique in a launch: that of global memory, or ``SHARED_LOG`` plus the block's own slice.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np

from gemm_lessons.sim.registry import SHARED_WINDOW, InstructionError

#: First generic address of global memory; below are shared addresses.
GLOBAL_BASE = 1 << 32
#: First log address of shared memory: block b has the 256 KiB from ``SHARED_LOG + (b << 18)``.
SHARED_LOG = 1 << 39
SLICE_BITS = 18
#: What the hardware keeps for itself at the bottom of a block's shared memory, in bytes. It also
#: makes 0 an invalid address and gives the dynamic part its alignment.
RESERVED = 1024
#: Every byte of memory that nobody has written: NaN as any float, -1 as a signed integer.
POISON = 0xFF
#: Name of the dynamic part, which kernels see under names of their own.
DYNAMIC = "dynamic shared memory"


class Root:
    """One allocation.

    Attributes:
        base: Kernel address of its first byte.
        log_base: Log address of its first byte.
        data: Its bytes, as a flat uint8 array; None if they are not contiguous.
        name: For messages.
        space: ``global``, ``shared`` or ``local``.
        granule: Smallest access seen so far, in bytes.
        mixed: Whether accesses of several sizes were seen.
        init: One byte for each byte, 0 until it is written; None where it is not tracked.
        shape: Of the array that fills it, to name elements; empty if none does.
        itemsize: Of that array, in bytes.
    """

    __slots__ = (
        "base", "data", "granule", "init", "itemsize", "log_base", "mixed", "name", "shape", "size",
        "space",
    )  # fmt: skip

    def __init__(
        self,
        space: str,
        base: int,
        log_base: int,
        size: int,
        data: np.ndarray | None,
        init: bytearray | None = None,
    ) -> None:
        self.space = space
        self.base = base
        self.log_base = log_base
        self.size = size
        self.data = data
        self.name = ""
        self.init = init
        self.shape: tuple[int, ...] = ()
        self.itemsize = 0
        self.granule = 0
        self.mixed = False

    def note_size(self, size: int) -> None:
        """Remember that accesses of ``size`` bytes (a power of two up to 16) occur."""
        if self.granule and self.granule != size:
            self.mixed = True
            self.granule = min(self.granule, size)
        elif not self.granule:
            self.granule = size

    def describe(self, array: np.ndarray) -> None:
        """Remember the shape of an array that begins where the allocation begins."""
        if array.flags.c_contiguous:
            self.shape, self.itemsize = array.shape, array.itemsize

    def element(self, offset: int) -> str:
        """The index of the element at an offset in bytes, as text."""
        if not self.shape or offset >= self.itemsize * int(np.prod(self.shape)):
            return f"at byte {offset}"
        index = np.unravel_index(offset // self.itemsize, self.shape)
        return str(tuple(int(i) for i in index))

    def free(self) -> None:
        """Let go of the memory; the description stays, for messages."""
        self.data = self.init = None


def owner_of(array: np.ndarray) -> np.ndarray:
    """The array that owns a view's memory, or the last one on the way to it."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _extent(array: np.ndarray) -> tuple[int, int]:
    low, high = np.lib.array_utils.byte_bounds(array)
    return int(low), int(high)


class GlobalMemory:
    """Addresses of host arrays that stand for device memory; they stay for the array's life."""

    def __init__(self) -> None:
        self._next = GLOBAL_BASE
        self._by_id: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._bases: list[int] = []
        self._owners: list[weakref.ref[Any]] = []

    def root(self, array: np.ndarray) -> tuple[Root, int]:
        """The allocation of an array, and the offset of its first element there, in bytes."""
        owner = owner_of(array)
        low, high = _extent(owner)
        base = self._base(owner, high - low)
        return (
            Root("global", base, base, high - low, _bytes_of(owner)),
            array.ctypes.data - low,
        )

    def address(self, array: np.ndarray) -> int:
        """Generic address of an array's first element."""
        owner = owner_of(array)
        low, high = _extent(owner)
        return self._base(owner, high - low) + array.ctypes.data - low

    def _base(self, owner: np.ndarray, size: int) -> int:
        known = self._by_id.get(id(owner))
        if known is not None and known[0]() is owner:
            return known[1]
        base = self._next
        # why: 256 is what cudaMalloc aligns to; the gap keeps neighbours apart, so that an
        # address just past an array is nobody's.
        self._next += -(-(size + 256) // 256) * 256
        reference = weakref.ref(owner)
        self._by_id[id(owner)] = reference, base
        self._bases.append(base)
        self._owners.append(reference)
        return base

    def find(self, address: int) -> tuple[np.ndarray, int]:
        """The array that owns a generic address, and the offset of the address in it, in bytes.

        Raises:
            InstructionError: No living array is there.
        """
        index = bisect_right(self._bases, address) - 1
        owner = self._owners[index]() if index >= 0 else None
        if owner is not None:
            offset = address - self._bases[index]
            low, high = _extent(owner)
            if offset < high - low:
                return owner, offset
        raise InstructionError(f"no array lies at the generic address {address:#x}")


def _bytes_of(owner: np.ndarray) -> np.ndarray | None:
    if owner.dtype.hasobject:
        return None
    flat: np.ndarray = owner.view(np.ndarray)
    if flat.flags.f_contiguous:
        flat = flat.T
    return flat.reshape(-1).view(np.uint8) if flat.flags.c_contiguous else None


GLOBAL = GlobalMemory()


class Layout:
    """Where static shared arrays are: at the same place in every block of a launch.

    Attributes:
        arrays: By the call that makes it: offset, shape, dtype and name of each array.
        static: Bytes of all of them.
    """

    def __init__(self) -> None:
        self.arrays: dict[Any, tuple[int, tuple[int, ...], np.dtype, str]] = {}
        self.static = 0
        self._next = 0

    def place(
        self,
        key: Any,
        shape: tuple[int, ...],
        dtype: np.dtype,
        alignment: int,
        name: str,
        after: int,
    ) -> None:
        """Find a place for an array, behind the others and ``after``."""
        start = -(-max(self._next, after) // alignment) * alignment
        size = dtype.itemsize * int(np.prod(shape))
        self.static += size
        self._next = start + size
        self.arrays[key] = start, shape, dtype, name

    @property
    def end(self) -> int:
        """Offset of the first byte behind all arrays."""
        return self._next


class SharedMemory:
    """The shared memory of one block: the dynamic part first, static arrays behind it.

    Attributes:
        dynamic: The dynamic part.
        layout: Where static arrays are.
        roots: All parts.
        on_allocate: Called with each new static array.
    """

    def __init__(
        self, block: int, cluster_rank: int, dynamic_bytes: int, checked: bool, layout: Layout
    ) -> None:
        self._window = (cluster_rank + 1) * SHARED_WINDOW
        self._log = SHARED_LOG + (block << SLICE_BITS)
        self._checked = checked
        self._dynamic_end = RESERVED + dynamic_bytes
        self.layout = layout
        self.roots: list[Root] = []
        self._allocations: dict[Any, tuple[Root, np.ndarray]] = {}
        self.on_allocate: Callable[[Root], None] = lambda root: None
        self.dynamic = self._allocate(RESERVED, dynamic_bytes)
        self.dynamic.name = DYNAMIC

    @property
    def used(self) -> int:
        """Bytes in use, without the reserved ones."""
        return max(self._dynamic_end, self.layout.end) - RESERVED

    def _allocate(self, start: int, size: int) -> Root:
        data = np.full(size, POISON, np.uint8)
        init = bytearray(size) if self._checked else None
        root = Root("shared", self._window + start, self._log + start, size, data, init)
        self.roots.append(root)
        return root

    def place(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, alignment: int, name: str) -> None:
        """Find a place for the static array of a call that is executed for the first time."""
        self.layout.place(key, shape, dtype, max(16, alignment), name, self._dynamic_end)

    def array(self, key: Any) -> tuple[Root, np.ndarray]:
        """The static array of one call of ``cuda.shared.array``: the same for all threads."""
        known = self._allocations.get(key)
        if known is None:
            start, shape, dtype, name = self.layout.arrays[key]
            root = self._allocate(start, dtype.itemsize * int(np.prod(shape)))
            if root.data is None:
                raise TypeError("shared memory has no bytes")
            root.name = name
            data = root.data.view(dtype).reshape(shape)
            root.describe(data)
            self.on_allocate(root)
            known = self._allocations[key] = root, data
        return known

    def find(self, address: int) -> tuple[Root, int]:
        """The allocation that holds a shared-window address of this block, and the offset.

        Raises:
            InstructionError: Nothing is there.
        """
        for root in self.roots:
            if 0 <= address - root.base < root.size:
                return root, address - root.base
        for key, (start, shape, dtype, _) in self.layout.arrays.items():
            # why: another block of the cluster may look before this one gets to its arrays.
            size = dtype.itemsize * int(np.prod(shape))
            if key not in self._allocations and 0 <= address - self._window - start < size:
                return self.array(key)[0], address - self._window - start
        raise InstructionError(
            f"shared address {address:#x} is outside the block's shared memory "
            f"({self.used} bytes from {self._window + RESERVED:#x})"
        )
