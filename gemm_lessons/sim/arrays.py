"""Arrays as a kernel sees them: bounds, initialisation and a log entry at each access.

The two accessors of a checked array are the hottest code of the simulator, so they are unrolled by
rank from one template. Whatever they do not recognise (slices, rows, records, errors) goes to the
slow, general path of :class:`KernelArray`.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from sys import _getframe
from types import CodeType
from typing import Any, Protocol

import numpy as np

from gemm_lessons.sim.memory import Root
from gemm_lessons.sim.recorder import (
    ADDRESS_SHIFT,
    READ,
    REWRITE,
    SITE_SHIFT,
    SIZE_CODES,
    WRITE,
    Recorder,
    access_key,
)
from gemm_lessons.sim.records import Record, dtype_of
from gemm_lessons.sim.semantics import reader, wrap_integer


class Machine(Protocol):
    """What arrays need from the engine."""

    recorder: Recorder
    fenced: bool

    def spot(self, depth: int = 2) -> tuple[CodeType, int]:
        """The bytecode instruction of the student's that is being executed."""

    def out_of_bounds(self, array: KernelArray, index: Any) -> None:
        """Report an index outside its array."""

    def unwritten(self, array: KernelArray, index: Any, log_address: int) -> None:
        """Report a read of memory that nobody has written."""

    def maybe_switch(self) -> None:
        """Under a seed: perhaps let another thread run."""

    def stored(self, log_address: int) -> None:
        """A thread that has passed a fence stores to global memory."""


class KernelArray:
    """An array inside a kernel.

    Attributes:
        raw: The elements.
        root: The allocation that they belong to.
        offset: Of the first element in the allocation, in bytes.
    """

    __slots__ = (
        "_at", "_init", "_key", "_m", "_n0", "_n1", "_n2", "_n3", "_ones", "_r", "_read",
        "_s0", "_s1", "_s2", "_s3", "offset", "raw", "root",
    )  # fmt: skip

    def __init__(self, machine: Machine, raw: np.ndarray, root: Root, offset: int) -> None:
        self._m = machine
        self._r = machine.recorder
        self.raw = raw
        self.root = root
        self.offset = offset
        self._at = offset
        self._init = root.init
        self._read = reader(raw.dtype)
        size = raw.dtype.itemsize
        self._ones = b"\1" * size
        if size in SIZE_CODES and root.space != "local":
            self._key = access_key(root.log_base + offset, size)
            root.note_size(size)
        else:
            self._key = 0
        for axis, (extent, stride) in enumerate(zip(raw.shape[:4], raw.strides[:4], strict=True)):
            setattr(self, f"_n{axis}", extent)
            setattr(self, f"_s{axis}", stride)

    # --- what NumPy arrays and Numba arrays have in common ---------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of each axis."""
        return self.raw.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.raw.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.raw.size

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next, for each axis."""
        return self.raw.strides

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self.raw.dtype

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.raw.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.raw.nbytes

    @property
    def T(self) -> KernelArray:  # noqa: N802 - NumPy's name
        """The axes in reverse order."""
        return self.part(self.raw.T)

    @property
    def real(self) -> KernelArray:
        """The real parts of complex elements."""
        return self.part(self.raw.real)

    @property
    def imag(self) -> KernelArray:
        """The imaginary parts of complex elements."""
        return self.part(self.raw.imag)

    @property
    def flat(self) -> KernelArray:
        """The elements in one axis."""
        return self.reshape(-1)

    def reshape(self, *shape: Any) -> KernelArray:
        """The same elements in another shape, without a copy."""
        changed = self.raw.reshape(*shape)
        if not np.shares_memory(changed, self.raw) and self.raw.size:
            raise NotImplementedError("reshape() of an array that is not contiguous")
        return self.part(changed)

    def ravel(self) -> KernelArray:
        """The elements in one axis."""
        return self.reshape(-1)

    def transpose(self, *axes: Any) -> KernelArray:
        """The axes in another order."""
        return self.part(self.raw.transpose(*axes))

    def copy(self) -> KernelArray:
        """A local array with the same elements."""
        data = self.raw.copy(order="C")
        init = None if self._init is None else bytearray(b"\1" * data.nbytes)
        return make_array(self._m, data, Root("local", 0, 0, data.nbytes, None, init), 0, type(self))

    def view(self, dtype: Any) -> KernelArray:
        """The same bytes as elements of another type."""
        return self.part(self.raw.view(dtype_of(dtype)))

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self.raw)))

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            kwargs["out"] = tuple(_raw(out) for out in kwargs["out"])
        return getattr(ufunc, method)(*map(_raw, args), **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not self.raw.dtype.names or name not in self.raw.dtype.names:
            raise AttributeError(f"a kernel's array has no attribute {name!r}")
        return self.part(self.raw[name])

    def __repr__(self) -> str:
        return f"<{self.root.space} array {self.root.name} {self.raw.dtype}{self.raw.shape}>"

    def part(self, raw: np.ndarray) -> KernelArray:
        """A view of some of the elements."""
        return make_array(
            self._m,
            raw,
            self.root,
            self.offset + raw.ctypes.data - self.raw.ctypes.data,
            type(self),
        )

    # --- access --------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        return self.get(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.set(index, value)

    def get(self, index: Any) -> Any:
        """Read an element, a record or a part: the slow way, for any index."""
        if isinstance(index, str):
            return self.part(self.raw[index])
        index = self.checked(index)
        if index is None:
            return self.poison()
        if self.raw.dtype.names and _is_element(index, self.raw.ndim):
            return Record(self, index)
        item = self.raw[index]
        if isinstance(item, np.ndarray):
            return self.part(item)
        at = self.offset_of(index)
        self.touch(at, READ)
        if self._init is not None and not self._init[self.offset + at]:
            self._m.unwritten(self, index, self.root.log_base + self.offset + at)
        return item if self._read is None else self._read(item)

    def set(self, index: Any, value: Any) -> None:
        """Write an element, a record or a part: the slow way, for any index."""
        if isinstance(index, str):
            self.part(self.raw[index]).set((), value)
            return
        index = self.checked(index)
        if index is None:
            return
        if not _is_element(index, self.raw.ndim):
            self._set_part(index, value)
        elif self.raw.dtype.names:
            for name in self.raw.dtype.names:
                self.part(self.raw[name]).set(index, _field(value, name))
        else:
            at = self.offset_of(index)
            same = _narrow(self.raw, index, value)
            start = self.offset + at
            if self._init is not None:
                same = same and bool(self._init[start])
                self._init[start : start + len(self._ones)] = self._ones
            self.touch(at, REWRITE if same else WRITE)

    def _set_part(self, index: Any, value: Any) -> None:
        target = self.raw[index]
        values = np.broadcast_to(np.asarray(_raw(value)), target.shape)
        part = self.part(target)
        for each in np.ndindex(target.shape):
            part.set(each, values[each])

    def checked(self, index: Any) -> Any:
        """The index as NumPy wants it, or None after reporting that it is out of bounds."""
        indices = index if isinstance(index, tuple) else (index,)
        if len(indices) > self.raw.ndim + sum(i is Ellipsis for i in indices):
            raise IndexError(f"{len(indices)} indices for an array of {self.raw.ndim} axes: {index!r}")
        axis = 0
        plain: list[Any] = []
        for each in indices:
            if each is Ellipsis:
                axis += self.raw.ndim - len(indices) + 1
                plain.append(each)
                continue
            if isinstance(each, slice):
                plain.append(slice(*(None if v is None else int(v) for v in _slice(each))))
            else:
                number = _index(each)
                if not 0 <= number < self.raw.shape[axis]:
                    self._m.out_of_bounds(self, index)
                    return None
                plain.append(number)
            axis += 1
        return tuple(plain)

    def offset_of(self, index: tuple[int, ...]) -> int:
        """Of an element from the first one, in bytes."""
        return sum(i * s for i, s in zip(index, self.raw.strides, strict=True))

    def touch(self, at: int, kind: int) -> None:
        """Log an access ``at`` bytes from the first element."""
        if not self._key:
            return
        self._m.maybe_switch()
        recorder = self._r
        code, lasti = self._m.spot(3)
        if code is not recorder.code:
            recorder.enter(code)
        recorder.append(
            (self._key | kind) + (at << ADDRESS_SHIFT) + recorder.site + (lasti << (SITE_SHIFT - 1))
        )
        if kind != READ and self._m.fenced:
            self._m.stored(self.root.log_base + self.offset + at)

    def poison(self) -> Any:
        """What is read outside: NaN, or 0, which as an index leads to no further finding."""
        byte = 0 if self.raw.dtype.kind in "iub" else 0xFF
        value = np.full(self.raw.itemsize, byte, np.uint8).view(self.raw.dtype)[0]
        return value if self._read is None else self._read(value)


def _is_element(index: tuple[Any, ...], ndim: int) -> bool:
    return len(index) == ndim and all(isinstance(i, int) for i in index)


def _slice(part: slice) -> tuple[Any, Any, Any]:
    return part.start, part.stop, part.step


def _index(value: Any) -> int:
    if isinstance(value, float | np.floating):
        raise TypeError(f"an index must be an integer, not the float {value!r}")
    return value.__index__()


def _field(value: Any, name: str) -> Any:
    return getattr(value, name) if isinstance(value, Record) else value[name]


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, KernelArray) else value


def _narrow(raw: np.ndarray, index: Any, value: Any) -> bool:
    """Store with the narrowing of a GPU; whether the element keeps its value."""
    old = raw[index]
    try:
        raw[index] = value
    except OverflowError:
        raw[index] = wrap_integer(value, raw.dtype)
    return bool(raw[index] == old)


_TEMPLATE = '''
class {name}(KernelArray):
    """A {what} of {rank} axes, with unrolled accessors."""

    __slots__ = ()

    def __getitem__(self, index):
        try:
            {unpack}
            if {inside}:
                {switch}
                at = {offset}
                {log_read}
                {init_read}
                item = self.raw[index]
                return item if self._read is None else self._read(item)
        except (TypeError, ValueError, IndexError):
            pass
        return self.get(index)

    def __setitem__(self, index, value):
        try:
            {unpack}
            if {inside}:
                {switch}
                at = {offset}
                raw = self.raw
                old = raw[index]
                try:
                    raw[index] = value
                except OverflowError:
                    raw[index] = wrap_integer(value, raw.dtype)
                {init_write}
                {log_write}
                return
        except (TypeError, ValueError, IndexError):
            pass
        self.set(index, value)
'''

_LOG = (
    "recorder = self._r; frame = _getframe(1)\n"
    "                if frame.f_code is not recorder.code: recorder.enter(frame.f_code)\n"
    "                recorder.append({key} + (at << ADDRESS_SHIFT)"
    " + recorder.site + (frame.f_lasti << SITE_SHIFT - 1))"
)
_INIT_WRITE = (
    "start = at + self._at\n"
    "                fresh = not self._init[start]\n"
    "                self._init[start:start + len(self._ones)] = self._ones"
)


def _generate(rank: int, space: str, switching: bool) -> type[KernelArray]:
    axes = range(rank)
    names = [f"i{axis}" for axis in axes]
    local = space == "local"
    written = "raw[index] == old" + (" and not fresh" if space == "shared" else "")
    pieces = {
        "name": f"{space.title()}{rank}{'Switching' if switching else ''}",
        "what": f"{space} array",
        "rank": rank,
        "unpack": "i0 = index" if rank == 1 else f"{', '.join(names)} = index",
        "inside": " and ".join(f"0 <= {n} < self._n{axis}" for axis, n in enumerate(names)),
        "offset": " + ".join(f"{n} * self._s{axis}" for axis, n in enumerate(names)),
        "switch": "self._m.maybe_switch()" if switching else "pass",
        "log_read": "pass" if local else _LOG.format(key="self._key"),
        "log_write": "pass"
        if local
        else _LOG.format(key=f"self._key + ({REWRITE} if {written} else {WRITE})")
        + (
            "\n                if self._m.fenced: self._m.stored(self.root.log_base + self._at + at)"
            if space == "global"
            else ""
        ),
        "init_read": "pass"
        if space == "global"
        else "if not self._init[at + self._at]:"
        " self._m.unwritten(self, index, self.root.log_base + self._at + at)",
        "init_write": "pass" if space == "global" else _INIT_WRITE,
    }
    source = _TEMPLATE.format(**pieces)
    file = f"<{pieces['name']}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    names_used: dict[str, Any] = {
        "__name__": __name__,
        "KernelArray": KernelArray,
        "_getframe": _getframe,
        "wrap_integer": wrap_integer,
        "ADDRESS_SHIFT": ADDRESS_SHIFT,
        "SITE_SHIFT": SITE_SHIFT,
    }
    exec(compile(source, file, "exec"), names_used)
    made: type[KernelArray] = names_used[str(pieces["name"])]
    return made


_CLASSES = {
    (space, rank, switching): _generate(rank, space, switching)
    for space in ("global", "shared", "local")
    for rank in (1, 2, 3, 4)
    for switching in (False, True)
}


class PlainArray(KernelArray):
    """An array in plain mode: Numba's arithmetic and, under a seed, switches; no checks."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        self._m.maybe_switch()
        item = self.raw[index]
        if isinstance(item, np.ndarray):
            return self.part(item)
        if isinstance(item, np.void):
            return Record(self, self.checked(index))
        return item if self._read is None else self._read(item)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._m.maybe_switch()
        try:
            self.raw[index] = _raw(value)
        except OverflowError:
            self.raw[index] = wrap_integer(value, self.raw.dtype)
        except (TypeError, ValueError):
            self.set(index, value)

    def touch(self, at: int, kind: int) -> None:
        """Nothing is logged in plain mode."""


def make_array(
    machine: Machine,
    raw: np.ndarray,
    root: Root,
    offset: int,
    like: type[KernelArray] | None = None,
) -> KernelArray:
    """Wrap an array for a kernel.

    Args:
        machine: The engine.
        raw: The elements.
        root: Their allocation.
        offset: Of the first element in the allocation, in bytes.
        like: The class of the array that this is a part of.
    """
    if like is PlainArray:
        return PlainArray(machine, raw, root, offset)
    simple = raw.dtype.names is None and raw.dtype.itemsize in SIZE_CODES and raw.ndim
    switching = getattr(machine, "switching", False)
    kind = _CLASSES.get((root.space, raw.ndim, switching), KernelArray) if simple else KernelArray
    return kind(machine, raw, root, offset)
