"""The cast of a launch: threads, their blocks, and asynchronous agents."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from types import CodeType
from typing import Any

from gemm_lessons.sim.clocks import Clock
from gemm_lessons.sim.memory import SharedMemory
from gemm_lessons.sim.registry import Reason
from gemm_lessons.sim.report import Actor, Index3

CallPath = tuple[tuple[CodeType, int], ...]


class Party:
    """Whoever accesses memory: a thread, or an asynchronous agent.

    Attributes:
        number: In the launch; agents come after all threads.
        block: The block it belongs to.
        clock: What happened before.
        count: Segments so far.
        segment: Row of the running segment; -1: a new one begins with the next access.
        fence: What it has fenced for the device; None before the first fence.
        block_fence: What it has fenced for its block.
        shown: What it has shown to asynchronous agents, by a proxy fence; None before the first.
    """

    __slots__ = ("block", "block_fence", "clock", "count", "fence", "number", "segment", "shown")

    def __init__(self, number: int, block: Block, clock: Clock) -> None:
        self.number = number
        self.block = block
        self.clock = clock
        self.count = 0
        self.segment = -1
        self.fence: Clock | None = None
        self.block_fence: Clock | None = None
        self.shown: Clock | None = None

    def published(self) -> Clock:
        """All that it did and knows."""
        return self.clock.with_thread(self.number, self.count)

    def learn(self, clock: Clock) -> None:
        """Continue after what a clock knows."""
        self.clock = clock
        self.segment = -1
        self.count += 1

    @property
    def actor(self) -> Actor:
        """For messages."""
        raise NotImplementedError

    @property
    def log_block(self) -> int:
        """The block whose barriers order this party's accesses; agents have their own."""
        raise NotImplementedError


class Thread(Party):
    """A simulated thread.

    Attributes:
        linear: Index in the block.
        index: ``(x, y, z)`` in the block.
        greenlet: Runs it; None before it starts.
        done: Whether it has returned.
        waits: What it waits for, for messages; empty while it can run.
        reason: More about that, if it waits for a condition.
        path: Calls that lead to where it waits.
        result: What it is given when it goes on.
        predicate: What it waits for, if it is a condition.
        spin: Site, locals and address of its last atomic that changed nothing.
        spinning: Whether it does nothing but repeat that atomic.
    """

    __slots__ = (
        "done", "greenlet", "index", "linear", "path", "predicate", "reason", "result", "spin", "spinning",
        "states", "waits",
    )  # fmt: skip

    def __init__(self, number: int, block: Block, linear: int, index: Index3) -> None:
        super().__init__(number, block, block.origin)
        self.linear = linear
        self.index = index
        self.greenlet: Any = None
        self.done = False
        self.waits = ""
        self.reason: Reason = ""
        self.path: CallPath = ()
        self.result: Any = None
        self.predicate: Callable[[], bool] | None = None
        self.spin: Any = None
        self.spinning = False
        self.states: dict[Hashable, Any] = {}

    @property
    def actor(self) -> Actor:
        """For messages."""
        return Actor(self.index, self.block.index)

    @property
    def log_block(self) -> int:
        """The block whose barriers order this thread's accesses."""
        return self.block.linear


class Agent(Party):
    """Asynchronous work in flight, e.g. one TMA copy.

    Attributes:
        name: For messages.
        action: What it does.
        done: Whether it has happened.
        at: The instruction that started it.
    """

    __slots__ = ("action", "at", "done", "name")

    def __init__(
        self, number: int, block: Block, clock: Clock, name: str, action: Callable[..., None]
    ) -> None:
        super().__init__(number, block, clock)
        self.name = name
        self.action = action
        self.done = False
        self.at: tuple[CodeType, int]

    @property
    def actor(self) -> Actor:
        """For messages."""
        return Actor(None, self.block.index, self.name)

    @property
    def log_block(self) -> int:
        """A negative number of its own: no barrier orders an agent."""
        return -1 - self.number


class Meeting:
    """Threads that wait for each other.

    Attributes:
        required: Who must come, in lane order.
        name: Of the function or instruction.
        came: What each brought, by linear index in ``required``.
    """

    __slots__ = ("came", "name", "required")

    def __init__(self, name: str, required: list[Thread]) -> None:
        self.name = name
        self.required = required
        self.came: dict[Thread, Any] = {}


class Block:
    """A resident block.

    Attributes:
        linear: Index in the grid.
        index: ``(x, y, z)`` in the grid.
        origin: What its threads know at their start: nothing.
        threads: All of them.
        fresh: Those that have not started.
        ready: Those that can go on.
        late: Those that go on when nobody else can.
        drawers: For each work counter, who draws from it; None once several threads did.
        alive: How many have not returned.
        at_barrier: Those that wait at a barrier, with what they brought.
        epoch: Barriers passed.
        meetings: Warps and groups that wait for members.
        waiters: Threads that wait for a condition.
        agents: Asynchronous work in flight.
        owed: Asynchronous work that a thread must wait for before the block ends, and none has; in order.
        cluster_rank: In its cluster.
        sm: The virtual SM.
        start: Virtual time of the first step.
        time: Virtual time.
        states: Hidden machine state of instructions.
    """

    def __init__(
        self,
        linear: int,
        index: Index3,
        dim: Index3,
        shared: SharedMemory,
        sm: int,
        time: float,
        origin: Clock,
    ) -> None:
        self.linear = linear
        self.origin = origin
        self.index = index
        count = dim[0] * dim[1] * dim[2]
        self.threads = [
            Thread(
                linear * count + n,
                self,
                n,
                (n % dim[0], n // dim[0] % dim[1], n // (dim[0] * dim[1])),
            )
            for n in range(count)
        ]
        self.fresh = deque(self.threads)
        self.ready: deque[Thread] = deque()
        self.late: deque[Thread] = deque()
        self.drawers: dict[Any, Thread | None] = {}
        self.alive = count
        self.at_barrier: dict[Thread, Any] = {}
        self.epoch = 0
        self.meetings: dict[Hashable, Meeting] = {}
        self.waiters: list[Thread] = []
        self.agents: list[Agent] = []
        self.owed: dict[Agent, None] = {}
        self.shared = shared
        self.cluster_rank = 0
        self.sm = sm
        self.start = self.time = time
        self.states: dict[Hashable, Any] = {}

    def warp(self, thread: Thread) -> list[Thread]:
        """The threads of a thread's warp, in lane order."""
        first = thread.linear & ~31
        return self.threads[first : first + 32]

    @property
    def runnable(self) -> bool:
        """Whether a thread of the block can run now."""
        return bool(self.ready or self.fresh or self.late)
