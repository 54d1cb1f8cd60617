"""Runs a launch: simulated threads as greenlets, blocks interleaved over virtual SMs.

One greenlet, the *hub*, decides who runs. A thread runs until it waits, ends, or is asked to let
others run (at a global atomic and, under a seed, anywhere); then the hub picks the block with the
least virtual time. Everything is deterministic, given the seed.
"""

from __future__ import annotations

import contextvars
import random
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from gemm_lessons.sim import collectives, diagnosis, instructions, messages
from gemm_lessons.sim.clocks import Clock, Segments
from gemm_lessons.sim.dimensions import block_dim, block_idx, grid_dim, thread_idx
from gemm_lessons.sim.findings import Findings
from gemm_lessons.sim.memory import GLOBAL, Layout, Root, SharedMemory
from gemm_lessons.sim.ordering import Ordering
from gemm_lessons.sim.recorder import Recorder
from gemm_lessons.sim.registry import SHARED_WINDOW, Instruction, InstructionError, Reason, set_engine
from gemm_lessons.sim.report import Index3, Report, Span
from gemm_lessons.sim.semantics import Shadows
from gemm_lessons.sim.settings import Settings
from gemm_lessons.sim.sites import place_of
from gemm_lessons.sim.threads import Agent, Block, Party, Thread
from gemm_lessons.sim.tickets import Tickets
from gemm_lessons.sim.watchdog import TimeUp, Watchdog
from gemm_lessons.sim.witness import Spot, Witness

#: Under a seed, a thread lets others run at one in so many accesses, on average.
SWITCH_EVERY = 6
#: How often, in a launch, a thread that runs for long is asked to let others run.
NUDGES = 16
#: Log entries that are looked at together.
BATCH = 1 << 20


current: Engine | None = None


class Engine(Ordering, Witness):
    """One launch.

    Attributes:
        cur: The thread that runs.
        party: On whose behalf memory is accessed: that thread, another lane, or an agent.
        report: What is found and counted.
        findings: Collects what is wrong.
        recorder: The log of accesses.
        checked: Whether accesses are checked and logged.
        switching: Whether threads switch anywhere.
        fenced: Whether any thread has passed a fence.
        progress: Grows whenever something happens that is not a failing spin.
        meetings: Groups of threads of several blocks that wait for members.
        at: The instruction on whose behalf a meaning or an agent accesses memory.
        owner: The Python thread that launched.
        shadows: The functions of the launch, as they run here.
        debug: Whether the kernel was compiled with ``debug=True``.
    """

    def __init__(
        self,
        name: str,
        grid: Index3,
        block: Index3,
        dynamic_bytes: int,
        settings: Settings,
        cluster_size: int = 1,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.checked = settings.mode == "checked"
        self.grid, self.block = grid, block
        self.dynamic_bytes = dynamic_bytes
        self.cluster_size = cluster_size
        self.report = Report(name, grid, block, settings.mode, settings.seed)
        self.recorder = Recorder()
        self.segments = Segments()
        self.findings = Findings(self)
        self.switching = settings.seed != 0
        self.states: dict[Any, Any] = {}
        self.meetings: dict[Any, Any] = {}
        self.shadows: Shadows | None = None
        self.at: Spot | None = None
        self.debug = False
        self.owner = 0
        self.failure: BaseException | None = None
        self.progress = 0
        self.ticks = 0
        self._recorded = 0  # entries in the recorder when the running block was chosen
        self.at_grid: list[Thread] = []
        self.tickets = Tickets()
        self.agents: list[Agent] = []
        self.cur: Thread = None  # type: ignore[assignment] # set before any kernel code runs
        self.party: Party = None  # type: ignore[assignment]
        self._random = random.Random(settings.seed)
        self._threads = block[0] * block[1] * block[2]
        self._blocks = grid[0] * grid[1] * grid[2]
        self._active: list[Block] = []
        self._next_block = 0
        self._origin = Clock({}, {})
        self._nudges = NUDGES
        self._sm_time = [0.0] * settings.sms
        self._leave = False
        self._stopping = False
        self._hub: Any = None
        self._context: Any = None
        self._function: Callable[..., Any] = print
        self._args: tuple[Any, ...] = ()
        self._agent_numbers = count(self._blocks * self._threads)
        self._roots: dict[int, Root] = {}
        self._layout = Layout()
        self._clusters: dict[int, list[Block]] = {}

    # --- a launch ------------------------------------------------------------------------------

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Run all blocks.

        Raises:
            BaseException: What the kernel itself raised.
        """
        global current
        if current is not None:
            raise RuntimeError("a kernel cannot launch a kernel in the simulator")
        self._function, self._args = function, args
        self.owner = threading.get_ident()
        self._hub = getcurrent()
        block_dim.set(self.block)
        grid_dim.set(self.grid)
        watchdog = Watchdog(
            lambda: self.ticks, self._nudge, self.settings.slice_seconds, self.settings.seconds
        )
        current = self
        set_engine(self)
        try:
            with np.errstate(all="ignore", divide="raise" if self.debug else "ignore"):
                # why: a greenlet has a context of its own, and NumPy keeps its error state there.
                self._context = contextvars.copy_context()
                try:
                    watchdog.start()
                    self._schedule()
                except TimeUp:
                    self._stopping = True
                    diagnosis.out_of_time(self, None)
                finally:
                    watchdog.stop()
                    self._tear_down()
                    current = None
                    set_engine(None)
                if self.checked:
                    self._look(final=True)
        finally:
            self.findings.close()
            self.tickets.close(self.report)
        if self.failure is not None:
            raise self.failure

    def _schedule(self) -> None:
        settings = self.settings
        room = settings.sms * settings.blocks_per_sm
        limit = self.capacity
        idle, seen = 0, 0
        while not self._stopping and (self._active or self._next_block < self._blocks):
            while len(self._active) < room and self._next_block < self._blocks:
                for _ in range(self.cluster_size):
                    self._admit()
            block = self._choose()
            if block is None:
                if self._next_block < self._blocks and room < limit:
                    room += 1
                    continue
                diagnosis.report_stuck(self, self._active)
                return
            self._step(block)
            if not block.alive:
                self._retire(block)
            if self.checked and len(self.recorder) > BATCH:
                self._look(final=False)
            idle = 0 if self.progress != seen else idle + 1
            seen = self.progress
            waiting = self._next_block < self._blocks and room < limit
            if idle > (2 if waiting else settings.spins) * len(self._active):
                idle = 0
                if waiting:
                    room = min(limit, 2 * room)
                else:
                    diagnosis.report_spinning(self, self._active, self._blocks - self._next_block)
                    return

    @property
    def blocks(self) -> int:
        """Number of blocks in the grid."""
        return self._blocks

    @property
    def capacity(self) -> int:
        """How many blocks the simulated GPU can hold at a time."""
        s = self.settings
        by_threads = s.THREADS_PER_SM // (-(-self._threads // s.WARP) * s.WARP)
        by_memory = (s.shared_bytes + 1024) // (self.dynamic_bytes + 1024)
        return s.sms * max(1, min(s.BLOCKS_PER_SM_LIMIT, by_threads, by_memory))

    def _admit(self) -> None:
        """Start the next block of the grid on the SM that is least loaded."""
        linear = self._next_block
        self._next_block += 1
        loads = [0] * self.settings.sms
        for other in self._active:
            loads[other.sm] += 1
        sm = min(range(len(loads)), key=lambda n: (loads[n], self._sm_time[n], n))
        gx, gy, _ = self.grid
        index = (linear % gx, linear // gx % gy, linear // (gx * gy))
        shared = SharedMemory(
            linear, linear % self.cluster_size, self.dynamic_bytes, self.checked, self._layout
        )
        block = Block(linear, index, self.block, shared, sm, self._sm_time[sm], self._origin)
        if self.switching:
            self._random.shuffle(block.fresh)
        shared.on_allocate = self.findings.know
        self.findings.know(shared.dynamic)
        block.cluster_rank = linear % self.cluster_size
        self._clusters.setdefault(linear - block.cluster_rank, []).append(block)
        self._active.append(block)

    def _choose(self) -> Block | None:
        """The block to run next: of those that can, the one with the least virtual time."""
        able = [block for block in self._active if block.runnable or self._wake(block)]
        if not able:
            return None
        if self.switching:
            return self._random.choice(able)
        return min(able, key=lambda block: (block.time, block.linear))

    def _wake(self, block: Block) -> bool:
        """Let threads go on whose condition holds; if none, let asynchronous work happen."""
        while True:
            woken = [t for t in block.waiters if t.predicate is not None and t.predicate()]
            for thread in woken:
                block.waiters.remove(thread)
                thread.predicate = None
                self.progress += 1
                self.resume(thread)
            if woken:
                return True
            if block.alive and len(block.at_barrier) == block.alive:
                collectives.pass_barrier(self, block)
                return True
            if collectives.settle_active(self, block):
                return True
            if not block.agents:
                return False
            self._complete(block)

    def _step(self, block: Block) -> None:
        """Run threads of a block until none can go on, or one lets another block run."""
        block_idx.set(block.index)
        self._recorded = len(self.recorder)
        self._leave = False
        while not self._leave and not self._stopping:
            if block.agents and self.switching and not self._random.randrange(4):
                self._complete(block)
            if block.ready and not (block.fresh and self.switching and self._random.random() < 0.5):
                thread = self._pop(block.ready)
                self.enter(thread)
                thread.greenlet.switch()
            elif block.fresh:
                worker = greenlet(self._work, self._hub)
                worker.gr_context = self._context.copy()
                worker.switch(block)
            elif block.late:
                block.ready.append(block.late.popleft())
            else:
                break
            if self.failure is not None:
                return
        block.time = 1 + self.now(block)

    def now(self, block: Block) -> float:
        """The virtual time of the block that runs, with what it has done since it was chosen."""
        return block.time + max(0, len(self.recorder) - self._recorded) / Settings.WARP

    def _pop(self, ready: Any) -> Thread:
        if self.switching and len(ready) > 1:
            ready.rotate(-self._random.randrange(len(ready)))
        thread: Thread = ready.popleft()
        return thread

    def _work(self, block: Block) -> None:
        """Body of a greenlet: start threads of a block until one waits, then see that one home."""
        while block.fresh and not self._stopping and not self._leave:
            thread = block.fresh.popleft()
            thread.greenlet = getcurrent()
            self.enter(thread)
            try:
                self._function(*self._args)
            except GreenletExit:
                return
            except (TimeUp, Exception) as error:
                self._stopping = True
                if isinstance(error, TimeUp):
                    diagnosis.out_of_time(self, error)
                else:
                    self.failure = diagnosis.failed(self, error)
                return
            thread.done = True
            block.alive -= 1
            self.progress += 1

    def _retire(self, block: Block) -> None:
        while block.agents:
            self._complete(block)
        for agent in block.owed:
            place = place_of(*agent.at)
            self.find("misuse", messages.nobody_waited(agent.name, place), place, agent.actor)
        self._active.remove(block)
        for root in block.shared.roots:
            root.free()
        self._sm_time[block.sm] = max(self._sm_time[block.sm], block.time)
        self.report.spans.append(Span(block.sm, block.linear, block.start, block.time))
        self.report.shared_bytes = max(self.report.shared_bytes, block.shared.used)

    def _tear_down(self) -> None:
        """End the greenlets of threads that have not returned."""
        self._stopping = True
        for block in self._active:
            for thread in block.threads:
                if thread.greenlet is not None and not thread.done and not thread.greenlet.dead:
                    thread.greenlet.throw(GreenletExit)

    # --- threads call this ------------------------------------------------------------------------

    def enter(self, thread: Thread) -> None:
        """Make a thread the current one."""
        self.cur = thread
        self.ticks += 1
        thread_idx.x, thread_idx.y, thread_idx.z = thread.index
        self.attribute(thread)

    def attribute(self, party: Party) -> None:
        """Accesses are a party's from here on."""
        self.party = party
        if not self.checked:
            return
        if party.segment < 0:
            party.segment = self.segments.add(
                party.number,
                party.log_block,
                party.block.epoch,
                party.count,
                party.clock,
                party.block_fence is not None,
            )
        self.recorder.mark(party.segment)

    def renew(self, party: Party) -> None:
        """A party has learned or published something: a new segment begins."""
        party.segment = -1
        party.count += 1
        if party is self.party:
            self.attribute(party)

    def resume(self, thread: Thread) -> None:
        """Let a waiting thread run again."""
        thread.waits = ""
        thread.block.ready.append(thread)

    def switch(self) -> None:
        """Wait: the hub runs others until somebody resumes this thread."""
        at, self.at = self.at, None
        self._hub.switch()
        self.at = at

    def let_others_run(self, spinning: bool = False) -> None:
        """Go to the end of the queue, and let the block with the least virtual time run."""
        thread = self.cur
        block = thread.block
        if len(self._active) == 1 and not block.runnable and not spinning:
            return
        self._leave = True
        if not spinning:
            self.progress += 1
        block.ready.append(thread)
        self.switch()

    def catch_up(self, site: Spot) -> bool:
        """Before one thread draws work for its block, let the others finish their part.

        Otherwise it would run ahead of them, and draw at a virtual time that is not the block's.

        Returns:
            Whether other blocks have had their turn.
        """
        thread = self.cur
        block = thread.block
        drawer = block.drawers.setdefault(site, thread)
        if drawer is not thread:
            block.drawers[site] = None
            return False
        if self.switching:
            return False
        if block.runnable:
            block.late.append(thread)
            self.switch()
        self.let_others_run(thread.spinning)
        return True

    def _nudge(self) -> None:
        """A thread has run for long, perhaps waiting for others by plain reads: let them run."""
        if self.checked and self._nudges:
            self._nudges -= 1
            self.recorder.at_next_entry(self._nudged)

    def _nudged(self) -> None:
        if getcurrent() is self.cur.greenlet and self.party is self.cur and self.at is None:
            self.let_others_run()

    def maybe_switch(self) -> None:
        """Under a seed, sometimes let another thread or block run."""
        if self.switching and not self._random.randrange(SWITCH_EVERY):
            self.let_others_run(spinning=self.cur.spinning)

    def wait_until(self, predicate: Callable[[], bool], reason: Reason) -> None:
        """Block the current thread until a condition holds."""
        if predicate():
            return
        thread = self.cur
        thread.predicate = predicate
        thread.path = (self.spot(),)
        thread.waits = "waits at {} for"
        thread.reason = reason
        thread.block.waiters.append(thread)
        self.switch()

    # --- memory ----------------------------------------------------------------------------------

    def global_root(self, array: np.ndarray) -> tuple[Root, int]:
        """The allocation of an array in global memory, and its offset there, in bytes."""
        root, offset = GLOBAL.root(array)
        known = self._roots.setdefault(root.base, root)
        if known is root:
            self.findings.know(root)
        return known, offset

    def address_of(self, array: np.ndarray) -> int:
        """Kernel address of a bare array, as kernels have them in plain mode."""
        pointer = array.ctypes.data
        for root in self.cur.block.shared.roots:
            start = root.data.ctypes.data if root.data is not None else 0
            if start <= pointer < start + root.size:
                return root.base + pointer - start
        return GLOBAL.address(array)

    def cluster(self, block: Block) -> list[Block]:
        """The blocks of a block's cluster, in the order of their ranks."""
        first = block.linear // self.cluster_size * self.cluster_size
        return self._clusters[first]

    def block_of_address(self, block: Block, address: int) -> Block:
        """The block of a cluster that a shared-window address belongs to."""
        rank = address // SHARED_WINDOW - 1
        if not 0 <= rank < self.cluster_size:
            raise InstructionError(f"shared address {address:#x} belongs to no block of the cluster")
        return self.cluster(block)[rank]

    # --- asynchronous work ------------------------------------------------------------------------

    def later(self, action: Callable[..., Any], name: str, owed: bool = False) -> Agent:
        """Start asynchronous work for the current party, which somebody may have to wait for."""
        party = self.party
        agent = Agent(next(self._agent_numbers), party.block, party.published(), name, action)
        agent.at = self.spot()
        if owed:
            party.block.owed[agent] = None
        if party.shown is not None:
            self.segments.show(agent.number, party.shown)
        self.agents.append(agent)
        party.block.agents.append(agent)
        self.renew(party)
        return agent

    def _complete(self, block: Block) -> None:
        """Let one piece of asynchronous work of a block happen."""
        which = self._random.randrange(len(block.agents)) if self.switching else 0
        agent = block.agents.pop(which)
        before = self.party
        self.progress += 1
        at, self.at = self.at, agent.at
        self.attribute(agent)
        try:
            agent.action(agent)
        except InstructionError as error:
            place = place_of(*agent.at)
            self.find("misuse", f"{error} ({agent.name}, started at {place})", place, agent.actor)
        agent.done = True
        self.at = at
        if before is not None:
            self.attribute(before)

    def execute(self, what: Instruction, args: tuple[Any, ...]) -> Any:
        """Run an instruction for the current thread."""
        return instructions.execute(self, what, args)
