"""The processes that a script starts in its worker: they end with the worker, however that ends.

A helper has the worker's ends of pipes and the shared socket, so one that stays would hold the address. They are known
where ``/proc`` says who is whose child (Linux). One that leaves the service's process group, as daemons do, is let go.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

STARTED = 19
"""Place of the start time in ``/proc/PID/stat``, counted from behind the name: tells two processes of one number."""


def below(pid: int) -> "dict[int, str]":
    """Return the helpers of process *pid*, and theirs: their numbers and when they started."""
    found: "dict[int, str]" = {}
    ours, waiting = os.getpgrp(), [pid]
    while waiting:
        for child in _children(waiting.pop()):
            with contextlib.suppress(OSError, IndexError):
                if child not in found and os.getpgid(child) == ours:
                    found[child] = _started(child)
                    waiting.append(child)
    return found


def end(helpers: "dict[int, str]") -> None:
    """End those of *helpers* that are still there."""
    for pid, started in helpers.items():
        with contextlib.suppress(OSError, IndexError):
            if _started(pid) == started and os.getpgid(pid) == os.getpgrp():
                os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> "list[int]":
    found: "list[int]" = []
    # Each thread has its own list.
    for place in Path("/proc", str(pid), "task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, place.read_text().split())
    return found


def _started(pid: int) -> str:
    return Path("/proc", str(pid), "stat").read_bytes().rpartition(b")")[2].split()[STARTED].decode()
