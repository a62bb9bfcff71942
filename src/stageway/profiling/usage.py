"""What a process and its children take of the machine: memory at its peak, processor time.."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

INTERVAL = 0.05
MIB = 2**20


class Usage:
    """Watches the tree of *pid*. Memory is the sum of resident sets: pages that processes share count for each."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.peak_mib = 0.0
        self._ended: dict[tuple[int, float], float] = {}

    def memory_mib(self) -> float:
        """Return what the tree holds now; it counts for the peak too."""
        held = 0
        for process in self._tree():
            try:
                held += process.memory_info().rss
            except psutil.Error:
                continue  # it has just ended
        self.peak_mib = max(self.peak_mib, held / MIB)
        return held / MIB

    def cpu_seconds(self) -> float:
        """Return the processor time of the tree so far; processes that were seen once and ended still count."""
        for process in self._tree():
            try:
                times = process.cpu_times()
                self._ended[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return sum(self._ended.values())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the memory again and again, so that the peak is seen."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(INTERVAL):
                self.memory_mib()

        thread = threading.Thread(target=watch, name="usage", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.memory_mib()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return []
