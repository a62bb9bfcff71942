"""The process of a revision: started here, or adopted from a keeper that was killed.

A process is known by its pid, its start time and a nonce in its environment. It leads a session and a process group of
its own, and writes its log itself, so it needs nobody to live.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

NONCE = "STAGEWAY_NONCE"
SAME_START = 2.0
"""Seconds by which a start time may differ between two readings when the clock was set."""
POLL = 0.1


class Process:
    """A living or ended process of ours."""

    def __init__(self, pid: int, started: float, nonce: str, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.started = started
        self.nonce = nonce
        self._child = child
        self._seen = psutil.Process(pid) if child is None else None
        self._ended = False

    @classmethod
    def start(
        cls, argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, log: Path, nonce: str, umask: int
    ) -> Process:
        """Start a program whose output is appended to *log*. Raises ``OSError`` when it cannot be started."""
        with log.open("ab") as out:
            child = subprocess.Popen(
                list(argv),
                env={**env, NONCE: nonce},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=umask,
            )
        try:
            started = psutil.Process(child.pid).create_time()
        except psutil.Error:  # it has ended already
            started = 0.0
        return cls(child.pid, started, nonce, child)

    @classmethod
    def adopt(cls, pid: int | None, started: float | None, nonce: str) -> Process | None:
        """Return the living process that was started with *nonce*, if there is one."""
        if pid is not None:
            with suppress(psutil.Error):
                known = psutil.Process(pid)
                same = started is None or abs(known.create_time() - started) <= SAME_START
                if same and _nonce(known, default=nonce) == nonce and _alive(known):
                    return cls(pid, known.create_time(), nonce)
        for other in _of_nonce(nonce):
            if os.getpgid(other.pid) == other.pid:
                return cls(other.pid, other.create_time(), nonce)
        return None

    @property
    def alive(self) -> bool:
        if not self._ended:
            if self._child is not None:
                self._ended = self._child.poll() is not None
            elif self._seen is not None:
                try:
                    self._ended = not _alive(self._seen)
                except psutil.Error:
                    self._ended = True
        return not self._ended

    @property
    def how_ended(self) -> str:
        """Say how it ended, as far as that can be known: an adopted process is not our child."""
        code = self._child.returncode if self._child is not None else None
        if code is None:
            return "ended"
        if code < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    async def ended(self) -> None:
        """Wait until it has ended."""
        while self.alive:
            await asyncio.sleep(POLL)

    async def end(self, grace: float) -> None:
        """Ask it to end, insist after *grace* seconds, and leave nothing of its group."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended(), grace)
        await self.kill()

    async def kill(self) -> None:
        """End it and all that it started, at once."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        await asyncio.to_thread(sweep, self.nonce)
        await self.ended()


def sweep(nonce: str) -> None:
    """Kill every process that was started with *nonce*, such as workers whose parent was killed."""
    for process in _of_nonce(nonce):
        with suppress(psutil.Error):
            process.kill()


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _of_nonce(nonce: str) -> list[psutil.Process]:
    mine = os.getuid()
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real == mine and _nonce(process) == nonce and _alive(process):
                found.append(process)
    return found


def _nonce(process: psutil.Process, default: str | None = None) -> str | None:
    """Return the nonce in the environment of *process*; *default* where the system does not let us look."""
    try:
        return process.environ().get(NONCE)
    except psutil.AccessDenied:
        return default if sys.platform == "darwin" else None
