"""One peer's server: started on its core, waited for, measured as the whole of its processes, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from bench.serving.load import Asking
from bench.serving.peers import Peer, Place

START_SECONDS = 90
WRONG_SECONDS = 10
"""How long a server may answer wrongly at its start: some listen before their model is there."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class NotServingError(Exception):
    """A server does not start or answers wrongly; the message says why in one line."""


@dataclass
class Server:
    """A running peer. *ready* is the seconds from its start to its first right answer."""

    process: subprocess.Popen[bytes]
    log: Path
    ready: float = 0.0

    def family(self) -> list[psutil.Process]:
        """Return the server's processes."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> float:
        """Return the processor seconds that all its processes have used."""
        used = 0.0
        for one in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                used += times.user + times.system
        return used

    def memory(self) -> float:
        """Return the MiB of all its processes; pages that they share are counted once (PSS)."""
        total = 0
        for one in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += one.memory_full_info().pss
        return total / 2**20

    def processes(self) -> int:
        return len(self.family())

    def tail(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-400:]


@contextmanager
def serving(peer: Peer, place: Place, asking: Asking, core: int | None) -> Iterator[Server]:
    """Start *peer* on *core*, yield it when its first answer was right, and end all its processes."""
    try:
        peer.prepare(place)
    except subprocess.CalledProcessError as error:
        raise NotServingError(f"its model cannot be made: {error.stderr.decode(errors='replace')[-300:]}") from error
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
        **dict.fromkeys(ONE_THREAD, "1"),
        "PATH": f"{place.bin}{os.pathsep}{os.environ['PATH']}",
        **peer.env(place),
    }
    handle, name = tempfile.mkstemp(prefix=f"{peer.name}-", suffix=".log", dir=place.scratch)
    begun = time.monotonic()
    process = subprocess.Popen(
        [*pinned, *peer.command(place)],
        cwd=place.scratch,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=handle,
        stderr=handle,
        start_new_session=True,
    )
    os.close(handle)
    favour(process.pid)
    server = Server(process, Path(name))
    try:
        _wait(server, asking)
        server.ready = time.monotonic() - begun
        yield server
    finally:
        _end(server)


def _wait(server: Server, asking: Asking) -> None:
    """Return when the first answer is right; a server that answers something else is not measured."""
    end = time.monotonic() + START_SECONDS
    wrong_until = None
    problem = "it does not answer"
    while time.monotonic() < (wrong_until or end):
        if server.process.poll() is not None:
            raise NotServingError(f"it ended with {server.process.returncode}: {server.tail()}")
        connection = HTTPConnection("127.0.0.1", asking.port, timeout=5)
        try:
            problem = asking.ask(connection, asking.pick(1))
            if not problem:
                return
            wrong_until = wrong_until or time.monotonic() + WRONG_SECONDS
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise NotServingError(f"{problem}: {server.tail()}")


def _end(server: Server) -> None:
    """End the server in order, then at once what is left of it, processes in groups of their own too."""
    process, known = server.process, server.family()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for one in known:
        with contextlib.suppress(psutil.NoSuchProcess):  # it knows a process that got the same number
            one.kill()


def favour(pid: int) -> None:
    """Give the session of *pid* as much as this process was given with ``--nice``; sessions share by group on Linux."""
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    if mine < 0:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(mine))


def free_ports(count: int) -> int:
    """Return the first of *count* free ports in a row."""
    for first in range(21000, 32000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", port))))
            except OSError:
                continue
            return first
    raise NotServingError("no free ports")
