"""How an instruction gets its meaning in the simulator.

A GPU instruction that Numba has no function for (``mma.sync``, TMA, ``mbarrier`` ...) is an
:class:`Instruction`: a name, a scope and a Python function, its *meaning*::

    @instruction("ld.global.v4.f32", scope="thread")
    def load_v4(ctx, array, index):
        return ctx.load(ctx.address(array, index), np.float32, count=4)

Called inside a simulated kernel, it goes through the engine that runs the kernel. A ``thread``
instruction is executed at once. A ``warp``, ``warpgroup``, ``block`` or ``cluster`` instruction is
a rendezvous: the engine lets the lanes meet, reports the lanes that never come, and then calls the
meaning once, for all of them::

    @instruction("mma.sync", scope="warp")
    def mma(ctx, calls):        # calls[i] = the arguments of lane i
        return [result for lane in calls]

Everything a meaning needs from the machine comes from its :class:`Context`: who runs, addresses,
memory that is bounds-, initialisation- and race-checked like the kernel's own accesses,
ordering, and asynchronous completion.

This module imports neither Numba nor the engine, so that anything may import it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol

__all__ = [
    "LIBRARIES",
    "SHARED_WINDOW",
    "Completion",
    "Context",
    "Instruction",
    "InstructionError",
    "Reason",
    "instruction",
    "is_shared_address",
    "library",
    "set_engine",
]

#: Completes "thread (0, 0, 0) waits for ..."; a function is asked when the message is written.
Reason = str | Callable[[], str]

Scope = Literal["thread", "warp", "warpgroup", "block", "cluster"]

#: Threads that take part in one instruction of a scope of fixed size.
SCOPE_SIZES = {"thread": 1, "warp": 32, "warpgroup": 128}

#: Size in bytes of one block's slice of the shared window. The low 18 bits of a shared address,
#: which is all that a wgmma descriptor holds, are therefore the offset in the block's memory.
SHARED_WINDOW = 1 << 24


#: Modules and packages whose code is never shown as the place of a finding: an instruction library
#: adds itself with :func:`library`, so that messages name the line of the kernel that calls it.
LIBRARIES = ["gemm_lessons.sim", "numpy", "greenlet", "numba.cuda.simulator", "numba.core"]


def library(package: str) -> None:
    """Declare a package, or a module, to be a library of instructions."""
    if package not in LIBRARIES:
        LIBRARIES.append(package)


class InstructionError(ValueError):
    """Raised by a meaning when the kernel uses its instruction wrongly.

    The engine turns it into a finding with the kernel's line, thread and block.
    """


def is_shared_address(address: int) -> bool:
    """Whether an address lies in the 32-bit shared window (else it is a global one)."""
    return 0 < address < 1 << 32


class Completion(Protocol):
    """A piece of asynchronous work, as :meth:`Context.later` returns it."""

    done: bool


class Context(ABC):
    """What a meaning sees of the machine. One object per simulated thread.

    Attributes:
        thread: Linear index in the block.
        lane: ``thread % 32``.
        warp: ``thread // 32``.
        block: Linear index in the grid.
        thread_idx: ``(x, y, z)`` in the block.
        block_idx: ``(x, y, z)`` in the grid.
        block_dim: ``(x, y, z)``, in threads.
        grid_dim: ``(x, y, z)``, in blocks.
        cluster_rank: Rank of this block in its cluster, 0 without clusters.
        cluster_size: Blocks per cluster, 1 without clusters.
        sm: The virtual SM that the block runs on.
        lanes: In a collective meaning, the context of each lane, in the order of ``calls``:
            work done for lane i through ``ctx.lanes[i]`` is charged to that lane.
    """

    thread: int
    lane: int
    warp: int
    block: int
    thread_idx: tuple[int, int, int]
    block_idx: tuple[int, int, int]
    block_dim: tuple[int, int, int]
    grid_dim: tuple[int, int, int]
    cluster_rank: int = 0
    cluster_size: int = 1
    sm: int = 0
    lanes: Sequence[Context] = ()

    # --- addresses -------------------------------------------------------------------------

    @abstractmethod
    def address(self, array: Any, index: Any = 0) -> int:
        """Address of an element.

        Args:
            array: A shared array (the result is its 32-bit address in the shared window:
                ``(cluster_rank + 1) * SHARED_WINDOW + offset``, where the dynamic part starts
                at a multiple of 1024) or a global one (a generic address of 1 << 32 or more,
                256-byte aligned for the first element of an allocation, the same in every
                launch and on the host: see ``gemm_lessons.sim.address_of``).
            index: An integer or a tuple, as in ``array[index]``. It may be one past the end.

        Raises:
            InstructionError: For a local array, which has no address.
        """

    @abstractmethod
    def element(self, address: int) -> tuple[Any, int]:
        """The flat NumPy array of bytes that holds an address, and the offset in it.

        Raises:
            InstructionError: No array is there.
        """

    # --- memory ----------------------------------------------------------------------------

    @abstractmethod
    def load(self, address: int, dtype: Any, count: int = 1, *, align: int | None = None) -> Any:
        """Read ``count`` consecutive elements at a shared or generic address.

        Args:
            address: Where; in bytes.
            dtype: NumPy dtype, or one that ``numpy.dtype`` accepts.
            count: Number of elements.
            align: Required alignment in bytes; the whole access's size up to 16 unless given.

        Returns:
            A NumPy array of ``count`` elements (a copy).

        Raises:
            InstructionError: The address is misaligned or outside every array.
        """

    @abstractmethod
    def store(self, address: int, values: Any, dtype: Any = None, *, align: int | None = None) -> None:
        """Write consecutive elements; the counterpart of :meth:`load`."""

    @abstractmethod
    def atomic(self, address: int, dtype: Any, update: Callable[[Any], Any]) -> Any:
        """Replace one element by ``update(old)``, atomically, and return the old value."""

    @abstractmethod
    def read(self, array: Any, index: Any = None) -> Any:
        """Elements of any array, a local one too: ``array[index]``, or all as a NumPy copy."""

    @abstractmethod
    def write(self, array: Any, values: Any, index: Any = None) -> None:
        """Set ``array[index]``, or every element from an array of as many values."""

    @abstractmethod
    def state(self, key: Hashable, factory: Callable[[], Any], space: str = "block") -> Any:
        """Hidden machine state, made at its first use: the phase of an mbarrier, a register.

        Args:
            key: Names the state, e.g. ``("mbarrier", address)``.
            factory: Makes the initial value.
            space: ``"thread"``, ``"warp"``, ``"block"`` or ``"launch"``: who shares it.
        """

    # --- order -----------------------------------------------------------------------------

    @abstractmethod
    def release(self, key: Hashable, *, own: bool = False) -> None:
        """Publish all that this thread did (and saw published) under a key; or only what it did itself."""

    @abstractmethod
    def acquire(self, key: Hashable) -> None:
        """Order what follows after everything released under a key so far.

        A key should name one phase: ``("mbarrier", address, phase)``. Only what is released
        before the acquire counts, and keys never expire.
        """

    @abstractmethod
    def fence(self, scope: str = "device") -> None:
        """``"block"``, ``"device"``, ``"system"`` fence, or ``"proxy.async"``."""

    # --- time ------------------------------------------------------------------------------

    def ticks(self) -> int:
        """The virtual time of this thread's block; 0 in an engine that has none."""
        return 0

    @abstractmethod
    def wait_until(self, predicate: Callable[[], bool], reason: Reason) -> None:
        """Block this thread until a predicate holds.

        The thread costs nothing while it waits, and if nobody can ever make the predicate true
        the launch ends with a deadlock that names the reason.

        Args:
            predicate: Looked at whenever anything has happened. No side effects.
            reason: What it waits for, or a function that says it at the time of the message.
        """

    @abstractmethod
    def later(
        self, action: Callable[[Context], None], agent: str = "async", *, owed: bool = False
    ) -> Completion:
        """Start asynchronous work: it happens at some later scheduling point.

        The action runs once, as an agent of its own: after what this thread did so far, and
        unordered with what anybody does next, until it releases a key (an mbarrier's phase) that
        is acquired, or until :meth:`join`. Seed 0 completes work late (as late as somebody waits
        for it, or a barrier is passed); other seeds draw the moment and the order.

        Args:
            action: Called with the agent's context.
            agent: Who does it, for messages: ``"the TMA engine"``.
            owed: Somebody must :meth:`join` it before the block ends.
        """

    @abstractmethod
    def join(self, completion: Completion, reason: Reason = "asynchronous work") -> None:
        """Wait for a piece of asynchronous work, and order what follows after it."""


class Engine(Protocol):
    """What an engine offers to instructions."""

    def execute(self, what: Instruction, args: tuple[Any, ...]) -> Any:
        """Run an instruction for the current simulated thread."""


_engine: Engine | None = None


def set_engine(engine: Engine | None) -> None:
    """Name the engine that runs the current launch, or None between launches."""
    global _engine
    _engine = engine


class Instruction:
    """One instruction; call it inside a simulated kernel.

    Attributes:
        name: As in the PTX manual; it appears in messages.
        scope: Which threads execute it together.
        meaning: What it does.
        ordered: Whether meeting for it also orders the lanes' memory accesses.
    """

    def __init__(
        self, name: str, scope: Scope, meaning: Callable[..., Any], *, ordered: bool | None = None
    ) -> None:
        self.name = name
        self.scope = scope
        self.meaning = meaning
        # why: *.sync of a warp is treated as syncwarp, as Numba's shuffles are; a warpgroup's
        # four warps are not brought together by wgmma.
        self.ordered = (scope != "warpgroup") if ordered is None else ordered
        self.__name__ = name
        self.__doc__ = meaning.__doc__

    def __call__(self, *args: Any) -> Any:
        """Execute it for the current thread."""
        if _engine is not None:
            return _engine.execute(self, args)
        if self.scope != "thread":
            raise InstructionError(
                f"{self.name} needs the threads of a {self.scope} to meet, which only the checked "
                "simulator and a GPU can do: unset GEMM_LESSONS_SIM=stock."
            )
        from gemm_lessons.sim.stock import context

        return self.meaning(context(), *args)

    def __repr__(self) -> str:
        return f"<instruction {self.name}, {self.scope}>"


def instruction(
    name: str, scope: Scope = "thread", *, ordered: bool | None = None
) -> Callable[[Callable[..., Any]], Instruction]:
    """Make the decorated meaning an :class:`Instruction`.

    Args:
        name: As in the PTX manual.
        scope: ``"thread"``, or who must meet: ``"warp"`` (32), ``"warpgroup"`` (four consecutive
            warps, 128), ``"block"``, ``"cluster"``.
        ordered: Whether the meeting orders memory accesses; by default all but ``warpgroup`` do.
    """

    def decorate(meaning: Callable[..., Any]) -> Instruction:
        return Instruction(name, scope, meaning, ordered=ordered)

    return decorate
