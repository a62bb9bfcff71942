"""What a service counts, in memory that its workers share: one mapped file beside the control file, one slot a worker.

A worker adds to the cells of its own slot and takes no lock for a request; whoever is asked reads the slots of all. A
worker that takes a dead one's place counts on from where that one was, so no sum ever goes back. The file: a head,
the names of the paths, then the slots; each is a table of 8-byte numbers, unsigned or floating, in the machine's order.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any, Callable, Iterable, NamedTuple, Sequence, Union

from stageway.serving.control import ControlFile
from stageway.serving.scorer import StartError

MAGIC = int.from_bytes(b"swmeter1", "little")
NAMED, NAME = 64, 248
"""Most paths that are counted apart, and the longest name of one in bytes; the rest is counted as ``OTHER``."""
OTHER = "other"
HEAD = 64
SLOTS = HEAD + NAMED * NAME
STATUSES = 600
TICK_SECONDS = 1.0

LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOGETHER = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0)

# A histogram is a cell for each bound, one for what is above all, and the sum.
SPENT = STATUSES
TOTAL = SPENT + len(LATENCIES) + 1
ROUTE = TOTAL + 1
RUN = ROUTE * (NAMED + 1)
REQUESTS = RUN + len(LATENCIES) + 2
JOINED = REQUESTS + len(TOGETHER) + 2
FAILED = JOINED + len(ROWS) + 2
COLLECTED, DROPPED, STARTS, CPU, PID, WAITING, RESIDENT = range(FAILED + 1, FAILED + 8)
SLOT = FAILED + 16

LIMITS = {408: "slow_client", 413: "body_size", 431: "header_size", 503: "busy", 504: "timeout"}
REJECTED = "Replies that mean a limit was passed: 408, 413, 431, 503, 504."
HISTOGRAMS = (
    ("stageway_run_duration_seconds", "What a call of run took.", RUN, LATENCIES),
    ("stageway_batch_requests", "Requests in one call of run.", REQUESTS, TOGETHER),
    ("stageway_batch_rows", "Rows in one call of run.", JOINED, ROWS),
)
NUMBERS = (
    ("stageway_run_failed", "counter", "Calls of run that failed.", FAILED),
    ("stageway_queue_length", "gauge", "Requests that wait for run.", WAITING),
    ("stageway_worker_starts", "counter", "Workers that were started.", STARTS),
    ("stageway_collected", "counter", "Pieces of data that were written.", COLLECTED),
    ("stageway_collection_dropped", "counter", "Pieces of data that could not be kept.", DROPPED),
    ("process_resident_memory_bytes", "gauge", "Resident memory of the workers.", RESIDENT),
)


class Counts(NamedTuple):
    """One histogram: how many fell below each bound and above the one before, then how many above all, and the sum."""

    bounds: "tuple[float, ...]"
    counts: "tuple[int, ...]"
    sum: float


Value = Union[int, float, Counts]


class Family(NamedTuple):
    """One metric as Prometheus and OpenTelemetry both know it; a counter's name is written without ``_total``."""

    name: str
    kind: str
    help: str
    samples: "list[tuple[dict[str, str], Value]]"


class Meter:
    """The counters of one worker, and the sums over all."""

    def __init__(self, control: str, slots: int, slot: int) -> None:
        """Open the file beside *control*, for *slots* workers; this one has claimed *slot*."""
        self._descriptor = os.open(control + ".meter", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, 0)
        try:
            _grow(self._descriptor, SLOTS + 8 * SLOT * slots)
            self._bytes = memoryview(mmap.mmap(self._descriptor, 0))
            self._numbers, self._reals = self._bytes.cast("Q"), self._bytes.cast("d")
            if self._numbers[0] != MAGIC:
                if self._numbers[0]:
                    # Another version wrote it, in another order.
                    self._bytes[:] = bytes(len(self._bytes))
                self._numbers[0], self._numbers[1] = MAGIC, time.time_ns()
        except OSError as error:
            raise StartError("{}.meter: {}; give it room to count in".format(control, error.strerror)) from error
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, 0)
        self._at = self._start(slot)
        self._route: "dict[str, int]" = {}
        self._other = self._at + NAMED * ROUTE
        self._lock = threading.Lock()
        self._cpu_before = self._reals[self._at + CPU]
        self._waiting: "Callable[[], int]" = lambda: 0
        self._numbers[self._at + STARTS] += 1
        self._numbers[self._at + PID] = os.getpid()
        self.tick()

    def know(self, paths: Iterable[str], prefix: str = "") -> None:
        """Count *paths* apart from now on, whether they are asked for with the *prefix* or without."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, 0)
        try:
            named = self._named(paths)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, 0)
        cells = {path: self._at + number * ROUTE for path, number in named.items()}
        self._route = {**cells, **{prefix + path: cell for path, cell in cells.items()}}

    @property
    def born(self) -> int:
        """When counting began, in nanoseconds since 1970."""
        return self._numbers[1]

    # Counting. ``count`` is called on the event loop only; the others take a lock, since several threads call them.

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a reply; a *path* that is no route's is ``OTHER``."""
        at = self._route.get(path, self._other)
        self._numbers[at + (status if 0 <= status < STATUSES else 0)] += 1
        self._numbers[at + SPENT + bisect_left(LATENCIES, seconds)] += 1
        self._reals[at + TOTAL] += seconds

    def batch(self, requests: int, rows: int) -> None:
        """Count one call of ``run`` that begins."""
        numbers, reals, at = self._numbers, self._reals, self._at
        with self._lock:
            numbers[at + REQUESTS + bisect_left(TOGETHER, requests)] += 1
            reals[at + REQUESTS + len(TOGETHER) + 1] += requests
            numbers[at + JOINED + bisect_left(ROWS, rows)] += 1
            reals[at + JOINED + len(ROWS) + 1] += rows

    def ran(self, seconds: float, failed: bool) -> None:
        """Count one call of ``run`` that has ended."""
        at = self._at
        with self._lock:
            self._numbers[at + RUN + bisect_left(LATENCIES, seconds)] += 1
            self._reals[at + RUN + len(LATENCIES) + 1] += seconds
            if failed:
                self._numbers[at + FAILED] += 1

    def add(self, cell: int, amount: int = 1) -> None:
        """Add to ``COLLECTED`` or ``DROPPED``."""
        with self._lock:
            self._numbers[self._at + cell] += amount

    def serve(self, waiting: "Callable[[], int]") -> None:
        """Keep this worker's gauges fresh from now on; *waiting* is its queue's length."""
        self._waiting = waiting
        threading.Thread(target=self._keep_fresh, name="meter", daemon=True).start()

    def tick(self) -> None:
        """Write this worker's gauges."""
        self._reals[self._at + CPU] = self._cpu_before + time.process_time()
        self._numbers[self._at + WAITING] = self._waiting()
        self._numbers[self._at + RESIDENT] = _resident()

    def _keep_fresh(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            self.tick()

    def lead(self) -> bool:
        """Say whether this worker is the one that exports for the service, which it then is until it ends."""
        return self._locked(fcntl.LOCK_NB)

    def wait_to_lead(self) -> None:
        """Return when whoever exports has ended, and this worker has taken over."""
        self._locked(0)

    def _locked(self, how: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | how, 1, 1)
            return True
        except OSError:
            return False

    # Reading.

    def families(self, control: ControlFile) -> "list[Family]":
        """Return everything, summed over the workers; what the control file knows comes from there."""
        self.tick()
        slots = [_Slot(self._numbers[at : at + SLOT], self._reals[at : at + SLOT]) for at in self._starts()]
        alive = [slot for slot in slots if _alive(slot.numbers[PID])]
        statuses, spent = self._by_path(slots)
        limited = dict.fromkeys(LIMITS.values(), 0.0)
        for labels, number in statuses:
            if int(labels["status"]) in LIMITS:
                limited[LIMITS[int(labels["status"])]] += number

        found = [
            Family("stageway_requests", "counter", "Replies.", [(labels, float(n)) for labels, n in statuses]),
            Family("stageway_request_duration_seconds", "histogram", "From a request to its reply.", spent),
            Family("stageway_rejected", "counter", REJECTED, [({"reason": one}, n) for one, n in limited.items()]),
            Family("stageway_requests_in_flight", "gauge", "Requests not yet answered.", [({}, control.in_flight())]),
            Family("stageway_workers", "gauge", "Workers that there are to be.", [({}, control.wanted)]),
            Family("stageway_workers_ready", "gauge", "Workers that serve.", [({}, control.serving)]),
        ]
        for name, help, cell, bounds in HISTOGRAMS:
            found.append(Family(name, "histogram", help, [({}, _summed(slots, cell, bounds))]))
        for name, kind, help, cell in NUMBERS:
            among = slots if kind == "counter" else alive
            found.append(Family(name, kind, help, [({}, float(sum(slot.numbers[cell] for slot in among)))]))
        cpu = sum(slot.reals[CPU] for slot in slots)
        return [*found, Family("process_cpu_seconds", "counter", "Processor time of the workers.", [({}, cpu)])]

    def _by_path(
        self, slots: "list[_Slot]"
    ) -> "tuple[list[tuple[dict[str, str], int]], list[tuple[dict[str, str], Value]]]":
        statuses: "list[tuple[dict[str, str], int]]" = []
        spent: "list[tuple[dict[str, str], Value]]" = []
        for path, number in [*self._read_names().items(), (OTHER, NAMED)]:
            first = number * ROUTE
            tables = [slot.numbers[first : first + STATUSES].tolist() for slot in slots]
            sums = [sum(cells) for cells in zip(*tables)]
            if not any(sums):
                continue
            statuses += [({"path": path, "status": str(code)}, count) for code, count in enumerate(sums) if count]
            spent.append(({"path": path}, _summed(slots, first + SPENT, LATENCIES)))
        return statuses, spent

    # The file.

    def _start(self, slot: int) -> int:
        return SLOTS // 8 + slot * SLOT

    def _starts(self) -> "Sequence[int]":
        return range(self._start(0), len(self._numbers) - SLOT + 1, SLOT)

    def _named(self, paths: Iterable[str]) -> "dict[str, int]":
        """Return the number of each path, having given one to those without; called with the file locked."""
        known = self._read_names()
        for path in paths:
            written = path.encode()
            if path not in known and len(known) < NAMED and 0 < len(written) <= NAME:
                start = HEAD + len(known) * NAME
                self._bytes[start : start + len(written)] = written
                known[path] = len(known)
        return known

    def _read_names(self) -> "dict[str, int]":
        found: "dict[str, int]" = {}
        for number in range(NAMED):
            start = HEAD + number * NAME
            written = bytes(self._bytes[start : start + NAME]).rstrip(b"\0")
            if not written:
                break
            found[written.decode()] = number
        return found


class _Slot(NamedTuple):
    numbers: Any
    reals: Any


def _summed(slots: "list[_Slot]", cell: int, bounds: "tuple[float, ...]") -> Counts:
    end = cell + len(bounds) + 1
    counts = zip(*(slot.numbers[cell:end].tolist() for slot in slots))
    return Counts(bounds, tuple(sum(one) for one in counts), float(sum(slot.reals[end] for slot in slots)))


def _grow(descriptor: int, size: int) -> None:
    """Make a file at least so large, with room on its disk: writing to a map without any would end the process."""
    before = os.fstat(descriptor).st_size
    if before < size:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, before, size - before)
        else:
            os.ftruncate(descriptor, size)


def _alive(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _resident() -> int:
    """Return this process's resident memory in bytes; the most it had, where the system tells no more."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
