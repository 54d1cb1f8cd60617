"""Turns what goes wrong at a place in a kernel into findings."""

from __future__ import annotations

from types import CodeType
from typing import Any

from greenlet import GreenletExit, getcurrent

from gemm_lessons.sim import messages
from gemm_lessons.sim.arrays import KernelArray
from gemm_lessons.sim.findings import Findings
from gemm_lessons.sim.memory import Root
from gemm_lessons.sim.report import Actor, Index3, Place
from gemm_lessons.sim.sites import instruction_at, kernel_frame, place_of
from gemm_lessons.sim.threads import Agent, Party, Thread

Spot = tuple[CodeType, int]


class Witness:
    """The part of an engine that reports.

    Attributes:
        at: The instruction on whose behalf a meaning or an agent accesses memory.
        findings: Collects what is wrong.
    """

    at: Spot | None
    agents: list[Agent]
    block: Index3
    cur: Thread
    findings: Findings
    grid: Index3
    party: Party
    _active: list[Any]
    _blocks: int
    _threads: int
    _hub: Any
    _stopping: bool

    def place(self) -> Place:
        """Where the current thread is in the student's source."""
        return place_of(*self.spot(3))

    def spot(self, depth: int = 2) -> Spot:
        """The bytecode instruction of the student's that is being executed."""
        if self.at is not None:
            return self.at
        return instruction_at(kernel_frame(depth))

    def find(self, kind: str, message: str, place: Place, actor: Any = None) -> None:
        """Add a finding; enough of them end the launch."""
        if self.findings.add(kind, message, place, actor):
            self.give_up()

    def give_up(self) -> None:
        """End the launch now, from wherever this is called."""
        self._stopping = True
        if getcurrent() is not self._hub:
            raise GreenletExit

    def out_of_bounds(self, array: KernelArray, index: Any) -> None:
        """Report an index outside its array."""
        place = self.place()
        name = self.findings.name(array.root, place)
        self.find(
            "bounds",
            messages.bounds(place, array.root.space, name, array.shape, index, self.cur.actor),
            place,
            self.cur.actor,
        )

    def unwritten(self, array: KernelArray, index: Any, log_address: int) -> None:
        """Report a read of memory that nobody has written, unless it turns out to be a race."""
        place = self.place()
        name = self.findings.name(array.root, place)
        message = messages.uninitialized(place, array.root.space, name, index, self.party.actor)
        self.findings.add_unwritten(message, place, self.party.actor, log_address)

    def unwritten_bytes(self, root: Root, offset: int) -> None:
        """The same for an instruction's read, ``offset`` bytes into an allocation."""
        place = self.place()
        message = messages.uninitialized(place, root.space, root.name, root.element(offset), self.party.actor)
        self.findings.add_unwritten(message, place, self.party.actor, root.log_base + offset)

    def actor(self, number: int) -> Actor:
        """The thread or agent with a number."""
        total = self._blocks * self._threads
        if number >= total:
            return self.agents[number - total].actor
        linear, inside = divmod(number, self._threads)
        gx, gy, _ = self.grid
        bx, by, _ = self.block
        return Actor(
            (inside % bx, inside // bx % by, inside // (bx * by)),
            (linear % gx, linear // gx % gy, linear // (gx * gy)),
        )

    def _look(self, final: bool) -> None:
        live = None if final else {block.linear: block.epoch for block in self._active}
        self.findings.look(live)
