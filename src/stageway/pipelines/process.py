"""Which process is this, and does that one still live? A pid is used again after a while; with its start it is not."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

from stageway.store import Store
from stageway.store.workers import Presence, Worker

PRESENCE_SECONDS = 10.0
"""How often a worker that takes any run says that it lives."""


def this_process() -> Worker:
    """Return the identity of this process."""
    return Worker(place=_place(), host=socket.gethostname(), pid=os.getpid(), start=_start(os.getpid()) or "")


def is_dead(worker: Worker) -> bool:
    """Say that *worker* certainly lives no more; ``False`` when it runs elsewhere, where nobody can look from here."""
    return worker.place == _place() and _start(worker.pid) != worker.start


def alive(store: Store) -> list[Presence]:
    """Return the workers that take any run: those that said so lately, and are not known to be dead."""
    since = store.now() - int(3000 * PRESENCE_SECONDS)
    return [one for one in store.workers.all() if one.beat_at >= since and not is_dead(one.worker)]


@cache
def _place() -> str:
    """Name one boot of one machine and, in containers, the namespace in which its process numbers count."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        import psutil

        return f"{socket.gethostname()}/{psutil.boot_time():.0f}"


def _start(pid: int) -> str | None:
    """Return when the process started, or ``None`` when there is none (or only what is left of one)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except ProcessLookupError:
        return None
    else:
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
