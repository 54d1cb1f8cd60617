"""Collects what is wrong with a launch, from what is noticed at once and from the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemm_lessons.sim import messages
from gemm_lessons.sim.counters import Counters
from gemm_lessons.sim.memory import DYNAMIC, SHARED_LOG, Root
from gemm_lessons.sim.races import Access, Race, RaceDetector
from gemm_lessons.sim.report import Actor, Finding, LineCount, Place
from gemm_lessons.sim.sites import array_name

if TYPE_CHECKING:
    from gemm_lessons.sim.engine import Engine


class Findings:
    """What is wrong, in the order in which it happened."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: list[tuple[int, Finding]] = []
        self._unwritten: list[tuple[int, int, Finding]] = []
        self._known: dict[tuple[object, ...], Finding] = {}
        self._before = 0
        self.roots: list[Root] = []
        self._races = RaceDetector(engine.segments, self.roots, engine.cluster_size > 1)
        threads = engine.block[0] * engine.block[1] * engine.block[2]
        self._counters = Counters(engine.segments, threads)

    # --- at once -----------------------------------------------------------------------------

    def add(self, kind: str, message: str, place: Place, actor: Actor | None) -> bool:
        """Add a finding, unless the same expression has one of the kind; whether that is enough."""
        finding = self._new(kind, message, place, actor)
        if finding is not None:
            self._found.append((self._now(), finding))
        return len(self._found) >= self._engine.settings.max_findings

    def add_unwritten(self, message: str, place: Place, actor: Actor, log_address: int) -> None:
        """Add a read of unwritten memory, to be dropped if it was a race (a missing barrier)."""
        finding = self._new("uninitialized", message, place, actor)
        if finding is not None:
            self._unwritten.append((self._now(), log_address, finding))

    def _new(self, kind: str, message: str, place: Place, actor: Actor | None) -> Finding | None:
        key = (kind, place)
        known = self._known.get(key)
        if known is not None:
            known.count += 1
            return None
        kernel = self._engine.report.kernel
        finding = self._known[key] = Finding(
            kind,
            message if f"'{kernel}'" in message else f"kernel '{kernel}': {message}",
            kernel,
            place,
            actor=actor,
            seed=self._engine.settings.seed,
        )
        return finding

    def _now(self) -> int:
        return self._before + len(self._engine.recorder)

    # --- from the log ----------------------------------------------------------------------------

    def look(self, live_epochs: dict[int, int] | None) -> None:
        """Look at the log so far.

        Args:
            live_epochs: Barriers passed by each unfinished block; None at the end.
        """
        entries, segments = self._engine.recorder.take()
        self._before += len(entries)
        if self._engine.settings.counters:
            self._counters.feed(entries, segments, live_epochs)
        for race in self._races.feed(entries, segments, live_epochs):
            self._add_race(race)

    def close(self) -> None:
        """Put everything in order in the report."""
        racy = self._races.racy
        for order, address, finding in self._unwritten:
            if not any(address + byte in racy for byte in range(16)):
                self._found.append((order, finding))
        self._unwritten.clear()
        self._found.sort(key=lambda each: each[0])
        report = self._engine.report
        report.findings = [f for _, f in self._found][: self._engine.settings.max_findings]
        report.lines = self._lines()

    def _add_race(self, race: Race) -> None:
        engine = self._engine
        sites = engine.recorder.sites
        first, second = sites.place(race.first.site), sites.place(race.second.site)
        sides = sorted([(first, _act(race.first)), (second, _act(race.second))], key=str)
        # why: ``h[i] += 1`` reads and writes; that is one mistake, not two.
        key = ("race", first) if first == second else ("race", *sides)
        if key in self._known:
            self._known[key].count += race.count
            return
        who = [engine.actor(engine.segments.row(a.segment)[0]) for a in (race.first, race.second)]
        element = self._element(race, first, second)
        if race.unfenced:
            message = messages.unfenced(element, (first, who[0]), (second, who[1]), engine.report.kernel)
        else:
            message = messages.race(
                element,
                (race.first.kind, first, who[0]),
                (race.second.kind, second, who[1]),
                engine.report.kernel,
            )
        finding = self._known[key] = Finding(
            "race",
            message,
            engine.report.kernel,
            second,
            first,
            who[1],
            who[0],
            engine.settings.seed,
            race.count,
        )
        self._found.append((race.order, finding))

    # --- allocations -----------------------------------------------------------------------------

    def know(self, root: Root) -> None:
        """Remember an allocation, to name its elements."""
        self.roots.append(root)

    # --- names -----------------------------------------------------------------------------------

    def name(self, root: Root, place: Place) -> str:
        """What the student calls an array."""
        return array_name(place.text) if root.name in ("", DYNAMIC) else root.name

    def _root(self, address: int) -> Root | None:
        for root in self.roots:
            if root.log_base <= address < root.log_base + root.size:
                return root
        return None

    def _element(self, race: Race, first: Place, second: Place) -> str:
        root = self._root(race.address)
        space = "shared" if race.address >= SHARED_LOG else "global"
        if root is None:
            return f"{space} array '{array_name(second.text) or array_name(first.text)}'"
        if root.name == DYNAMIC:
            return f"{DYNAMIC} {root.element(race.address - root.log_base)}"
        name = root.name or array_name(second.text) or array_name(first.text)
        return f"{space} array '{name}' element {root.element(race.address - root.log_base)}"

    def _lines(self) -> list[LineCount]:
        merged: dict[tuple[Place, str, str], LineCount] = {}
        sites = self._engine.recorder.sites
        for (site, shared, kind), sums in self._counters.traffic.items():
            place = sites.place(site)
            space = "shared" if shared else "global"
            root = self._root(sums.address)
            name = root.name if root and root.name != DYNAMIC else ""
            name = name or array_name(place.text)
            line = merged.setdefault((place, space, kind), LineCount(place, space, name, kind))
            line.accesses += sums.accesses
            line.requests += sums.requests
            line.sectors += sums.sectors
            line.wavefronts += sums.wavefronts
            line.worst = max(line.worst, sums.worst)
        return sorted(merged.values(), key=lambda c: (c.place.file, c.place.line, c.place.text))


def _act(access: Access) -> str:
    return messages.verb(access.kind)
