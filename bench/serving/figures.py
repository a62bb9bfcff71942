"""What was measured, as facts: one sample for each run of the load, medians over rounds, and the goals as ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.serving.peers import NAMED, PEERS

Cell = tuple[str, int, int]
"""Model, rows of a request, connections."""

COMMON = 64


@dataclass(frozen=True)
class Sample:
    """One run of the load on one server."""

    peer: str
    model: str
    rows: int
    connections: int
    rate: float
    p50: float
    p99: float
    bad: int
    broken: int
    checked: int
    wrong: int
    per_cpu: float
    """Requests for each processor second of the server."""

    @property
    def cell(self) -> Cell:
        return self.model, self.rows, self.connections


@dataclass(frozen=True)
class Running:
    """One server as a whole: MiB after its load, seconds from its start to its first right answer."""

    peer: str
    model: str
    memory: float
    ready: float
    processes: int


@dataclass
class Figures:
    """All of one run. *skipped* says why a peer has no figures."""

    samples: list[Sample] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def of(self, peer: str, cell: Cell) -> Sample | None:
        """Return the medians of a peer's samples in *cell*; counts are added up."""
        found = [one for one in self.samples if one.peer == peer and one.cell == cell]
        if not found:
            return None

        def middle(name: str) -> float:
            return float(statistics.median(getattr(one, name) for one in found))

        def sums(name: str) -> int:
            return sum(int(getattr(one, name)) for one in found)

        counts = {name: sums(name) for name in ("bad", "broken", "checked", "wrong")}
        rates = {name: middle(name) for name in ("rate", "p50", "p99", "per_cpu")}
        facts: dict[str, Any] = {**asdict(found[0]), **counts, **rates}
        return Sample(**facts)

    def memory(self, peer: str, model: str) -> float | None:
        found = [one.memory for one in self.running if (one.peer, one.model) == (peer, model)]
        return statistics.median(found) if found else None

    def best(self, cell: Cell) -> Sample | None:
        """Return the fastest server in *cell* that is neither ours nor a limit."""
        peers = [one.name for one in PEERS if not one.ours and not one.limit]
        found = [sample for sample in (self.of(name, cell) for name in peers) if sample is not None]
        return max(found, key=lambda one: one.rate, default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "facts": self.facts,
            "goals": [asdict(one) for one in goals(self)],
            "medians": [asdict(one) for one in self.medians()],
            "servers": [asdict(one) for one in self.running],
            "samples": [asdict(one) for one in self.samples],
            "skipped": self.skipped,
        }

    def medians(self) -> Iterable[Sample]:
        for peer, cell in dict.fromkeys((one.peer, one.cell) for one in self.samples):
            found = self.of(peer, cell)
            assert found is not None
            yield found


@dataclass(frozen=True)
class Goal:
    """One ratio: reached or not, or ``None`` where something it needs was not measured."""

    says: str
    ratio: float | None
    limit: float
    at_least: bool
    detail: str = ""

    @property
    def reached(self) -> bool | None:
        if self.ratio is None:
            return None
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


OURS, FAST = "stageway", "stageway-accelerated"
RIDGE_1, RIDGE_64, FOREST_16 = ("ridge", 1, 1), ("ridge", 1, COMMON), ("forest", 1, 16)
GOAL_CELLS: dict[str, dict[str, tuple[Cell, ...]]] = {
    "ridge": dict.fromkeys((OURS, "azml", "fastapi-async", "granian-thread", "granian-batch"), (RIDGE_1, RIDGE_64)),
    "forest": dict.fromkeys((OURS, FAST, "fastapi-async", "litserve-batch", "mlserver-batch"), (FOREST_16,)),
}
"""What the goals need: model → peer → cells."""


def goals(figures: Figures) -> list[Goal]:
    """Return the goals with what was measured."""
    best, forest = figures.best(RIDGE_64), figures.best(FOREST_16)
    named = best.peer if best else "best peer"
    quick = forest.peer if forest else "best peer"

    def goal(says: str, cell: Cell, over: Sample | None, limit: float, *, of: str = OURS) -> Goal:
        mine = figures.of(of, cell)
        if mine is None or over is None or not over.rate:
            return Goal(says, None, limit, True)
        detail = f"{mine.rate:,.0f} / {over.rate:,.0f} req/s; by CPU time {mine.per_cpu / max(over.per_cpu, 1e-9):.2f}"
        return Goal(says, mine.rate / over.rate, limit, True, detail)

    def tail(says: str, cell: Cell, over: Sample | None) -> Goal:
        mine = figures.of(OURS, cell)
        if mine is None or over is None or not over.p99:
            return Goal(says, None, 1, False)
        return Goal(says, mine.p99 / over.p99, 1, False, f"{mine.p99:.2f} / {over.p99:.2f} ms")

    def at(peer: str, cell: Cell) -> Sample | None:
        return figures.of(peer, cell)

    found = [
        goal("ridge, 64 connections: stageway / azml", RIDGE_64, at("azml", RIDGE_64), 15),
        goal(f"ridge, 64 connections: stageway / {named}, the best peer", RIDGE_64, best, 5),
        tail(f"ridge, 64 connections, p99: stageway / {named}", RIDGE_64, best),
        tail("ridge, 64 connections, p99: stageway / azml", RIDGE_64, at("azml", RIDGE_64)),
        goal("ridge, 64 connections: stageway / bare granian, joining", RIDGE_64, at("granian-batch", RIDGE_64), 0.8),
        goal(
            "ridge, 1 connection: stageway / bare granian, one at a time", RIDGE_1, at("granian-thread", RIDGE_1), 0.9
        ),
        goal(f"forest, 16 connections: stageway accelerated / {quick}, the best peer", FOREST_16, forest, 10, of=FAST),
    ]
    mine, bare = figures.memory(OURS, "ridge"), figures.memory("granian-batch", "ridge")
    ratio = mine / bare if mine and bare else None
    detail = f"{mine:.0f} / {bare:.0f} MiB" if mine and bare else ""
    return [*found, Goal("memory, 1 worker: stageway / bare granian", ratio, 1.2, False, detail)]


def order(peers: Iterable[str]) -> list[str]:
    """Return *peers* as the table lists them."""
    wanted = set(peers)
    return [name for name in NAMED if name in wanted]
