"""What a launch found and counted. Imports neither Numba nor the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Index3 = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A spot in the student's source.

    Attributes:
        file: Path, as Python knows it.
        line: 1-based; 0 where there is none.
        text: The expression as written, e.g. ``s_a[row, k]``; empty without the source.
        function: Name of the function.
    """

    file: str = ""
    line: int = 0
    text: str = ""
    function: str = ""

    def __str__(self) -> str:
        return f"line {self.line}" + (f": '{self.text}'" if self.text else "")


@dataclass(frozen=True)
class Actor:
    """Who did something.

    Attributes:
        thread: ``(x, y, z)`` in its block, or None for an asynchronous agent.
        block: ``(x, y, z)`` in the grid.
        agent: Name of the agent, e.g. ``the TMA engine``.
    """

    thread: Index3 | None
    block: Index3
    agent: str = ""

    def __str__(self) -> str:
        if self.thread is None:
            return f"{self.agent} of block {self.block}"
        return f"thread {self.thread} of block {self.block}"


@dataclass
class Finding:
    """One thing that is wrong with a kernel.

    Attributes:
        kind: A key of :data:`KINDS`.
        message: For the student: what, where, who, and what to do.
        kernel: Name of the kernel.
        place: Where; the second access of a race.
        other: The first access of a race.
        actor: Who; of a race, the second.
        other_actor: The first of a race.
        seed: Replays it.
        count: How often it happened, as far as was counted.
    """

    kind: str
    message: str
    kernel: str = ""
    place: Place = field(default_factory=Place)
    other: Place | None = None
    actor: Actor | None = None
    other_actor: Actor | None = None
    seed: int = 0
    count: int = 1

    def __str__(self) -> str:
        return self.message


class SimulatorError(Exception):
    """A launch found something wrong; ``findings`` holds up to five.

    Attributes:
        findings: In the order in which they happened.
    """

    def __init__(self, message: str, findings: list[Finding] | None = None) -> None:
        super().__init__(message)
        self.findings = findings or []


class OutOfBoundsError(SimulatorError, IndexError):
    """An index is outside its array, or negative."""


class UninitializedError(SimulatorError):
    """Shared or local memory is read before anything was written there."""


class RaceError(SimulatorError):
    """Two threads use the same element, one of them writes, and nothing orders them."""


class BarrierError(SimulatorError):
    """Not all threads of a block reach the same barrier."""


class DeadlockError(SimulatorError):
    """No thread can continue."""


class EndlessLoopError(SimulatorError, TimeoutError):
    """A thread, or the whole launch, does not come to an end."""


class CollectiveError(SimulatorError):
    """A warp function is called without some of the lanes that it names."""


class LaunchError(SimulatorError, ValueError):
    """The launch itself is impossible: too many threads, too much shared memory, no blocks."""


class MisuseError(SimulatorError, ValueError):
    """An instruction or a function is used in a way that the GPU does not have."""


class ArithmeticFindingError(SimulatorError, ZeroDivisionError):
    """An integer division by zero: on a GPU it gives some number and no error."""


KINDS: dict[str, type[SimulatorError]] = {
    "bounds": OutOfBoundsError,
    "uninitialized": UninitializedError,
    "race": RaceError,
    "barrier": BarrierError,
    "deadlock": DeadlockError,
    "endless": EndlessLoopError,
    "collective": CollectiveError,
    "launch": LaunchError,
    "misuse": MisuseError,
    "arithmetic": ArithmeticFindingError,
}


def error_from(findings: list[Finding]) -> SimulatorError:
    """The exception for a launch with findings; its class is that of the first."""
    first = findings[0]
    if len(findings) == 1:
        text = first.message
    else:
        text = f"{len(findings)} findings in kernel '{first.kernel}'\n" + "\n".join(
            f"({number}) {finding.message}" for number, finding in enumerate(findings, 1)
        )
    if first.seed:
        text += f"\nGEMM_LESSONS_SIM_SEED={first.seed} replays this."
    return KINDS[first.kind](text, findings)


@dataclass
class LineCount:
    """Memory traffic of one expression of the source, counted, not timed.

    Attributes:
        place: The expression.
        space: ``global`` or ``shared``.
        array: Name of the array, where it is known.
        kind: ``load``, ``store`` or ``atomic``.
        accesses: Accesses by threads.
        requests: Times that a warp executed the expression.
        sectors: 32-byte sectors touched, summed over requests (global).
        wavefronts: Passes over the 32 banks, summed over requests; 1 per request is free of
            conflicts (shared).
        worst: Most wavefronts of one request: 32 is a 32-way conflict.
    """

    place: Place
    space: str
    array: str
    kind: str
    accesses: int = 0
    requests: int = 0
    sectors: int = 0
    wavefronts: int = 0
    worst: int = 0

    @property
    def lanes_per_request(self) -> float:
        """Average number of lanes in a request."""
        return self.accesses / max(1, self.requests)

    @property
    def sectors_per_request(self) -> float:
        """4 is ideal for 32 lanes of float32; 32 means that every lane has its own sector."""
        return self.sectors / max(1, self.requests)

    @property
    def wavefronts_per_request(self) -> float:
        """1 is ideal."""
        return self.wavefronts / max(1, self.requests)

    def __str__(self) -> str:
        head = f"{self.place} {self.kind} {self.space} {self.array}: {self.requests} requests"
        if self.space == "global":
            return f"{head}, {self.sectors_per_request:.1f} sectors each"
        return f"{head}, {self.wavefronts_per_request:.2f} wavefronts each, worst {self.worst}"


@dataclass
class Span:
    """Something a block did on its SM, in virtual time (a model's units, never a time).

    Attributes:
        sm: Number of the virtual SM.
        block: Linear index of the block.
        start: Virtual time at which it began.
        stop: Virtual time at which it ended.
        label: ``block``, or what the kernel's atomic handed out, e.g. ``ticket 7``.
    """

    sm: int
    block: int
    start: float
    stop: float
    label: str = "block"


@dataclass
class Report:
    """Everything known about one launch.

    Attributes:
        kernel: Name.
        grid: Blocks, ``(x, y, z)``.
        block: Threads, ``(x, y, z)``.
        mode: ``checked`` or ``plain``.
        seed: Replays the launch.
        findings: What was wrong.
        lines: Traffic per expression, in source order (checked mode with counters).
        spans: What ran where: one per block, and one per ticket drawn from a global counter.
        tickets: Global atomics that gave each block a value, ``{block: [values]}``: with one
            work counter in a kernel, the tiles of each block.
        atomics: Number of global atomics.
        barriers: Number of times that a block passed a barrier.
        shared_bytes: Shared memory of a block.
        instructions: How often threads met for each instruction of a warp or more, by its name.
    """

    kernel: str
    grid: Index3
    block: Index3
    mode: str = "checked"
    seed: int = 0
    findings: list[Finding] = field(default_factory=list)
    lines: list[LineCount] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    tickets: dict[int, list[Any]] = field(default_factory=dict)
    atomics: int = 0
    barriers: int = 0
    shared_bytes: int = 0
    instructions: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.kernel}: grid {self.grid}, block {self.block}, {self.mode}"]
        parts += [f"  {line}" for line in self.lines]
        parts += [f"  {finding.kind}: {finding}" for finding in self.findings]
        return "\n".join(parts)

    def line(self, text: str) -> LineCount:
        """The counts of one expression.

        Args:
            text: The expression as written in the kernel, e.g. ``"w[row, k]"``.

        Raises:
            KeyError: No such expression touched memory.
        """
        for count in self.lines:
            if count.place.text == text:
                return count
        known = ", ".join(repr(c.place.text) for c in self.lines)
        raise KeyError(f"no counts for {text!r}; there are {known}")


_last: Report | None = None


def last_report() -> Report:
    """The report of the latest launch in this process.

    Raises:
        LookupError: Nothing was launched in the simulator yet.
    """
    if _last is None:
        raise LookupError("no kernel was launched in the checked simulator yet")
    return _last


def remember(report: Report) -> None:
    """Make a report the latest."""
    global _last
    _last = report
