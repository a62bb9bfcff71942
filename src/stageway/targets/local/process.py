"""The process of a revision: started here, or adopted from a keeper that was killed.

A process is known by its pid, its start time, and a nonce and its place in its environment. It leads a session and a
process group of its own, and writes its log itself, so it needs nobody to live.
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
PLACE = "STAGEWAY_PLACE"
SAME_START = 2.0
"""Seconds by which a start time may differ between two readings when the clock was set."""
POLL = 0.1


class Process:
    """A living or ended process of ours."""

    def __init__(self, pid: int, started: float, place: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.started = started
        self.place = place
        self._child = child
        self._seen = psutil.Process(pid) if child is None else None
        self._ended = False

    @classmethod
    def start(
        cls, argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, place: Path, log: Path, nonce: str, umask: int
    ) -> Process:
        """Start a program whose output is appended to *log*. Raises ``OSError`` when it cannot be started."""
        with log.open("ab") as out:
            child = subprocess.Popen(
                list(argv),
                env={**env, NONCE: nonce, PLACE: str(place)},
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
        return cls(child.pid, started, place, child)

    @classmethod
    def adopt(cls, place: Path, pid: int | None, started: float | None, nonce: str) -> Process | None:
        """Return the living process that was started in *place* with *nonce*, if there is one."""
        for known in of_place(place):
            with suppress(psutil.Error, OSError):
                if known.environ().get(NONCE) == nonce and os.getpgid(known.pid) == known.pid:
                    return cls(known.pid, known.create_time(), place)
        if sys.platform == "darwin" and pid is not None and started is not None:
            # The environment of some programs cannot be read there.
            with suppress(psutil.Error):
                known = psutil.Process(pid)
                if abs(known.create_time() - started) <= SAME_START and _alive(known):
                    return cls(pid, started, place)
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
        await asyncio.to_thread(sweep, self.place)
        await self.ended()


def sweep(place: Path) -> None:
    """Kill every process that was started in *place*, such as workers whose parent was killed."""
    for process in of_place(place):
        with suppress(psutil.Error):
            process.kill()


def sweep_strays(places: Path) -> None:
    """Kill what was started in a folder below *places* that is gone by now."""
    for process in of_place(places):
        with suppress(psutil.Error):
            if not Path(process.environ()[PLACE]).is_dir():
                process.kill()


def of_place(place: Path) -> list[psutil.Process]:
    """Return the living processes that were started in the folder *place*, or in one below it."""
    mine, found = os.getuid(), []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if process.uids().real == mine and _alive(process):
                at = process.environ().get(PLACE)
                if at is not None and Path(at).is_relative_to(place):
                    found.append(process)
    return found


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
