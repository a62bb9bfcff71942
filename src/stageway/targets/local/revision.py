"""One revision in the keeper: its process, its health, and what is done when the process ends."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageway.errors import RefusedError
from stageway.serving.control import ControlFile
from stageway.serving.logs import why_not_started
from stageway.targets.local import logs
from stageway.targets.local.front import Backend
from stageway.targets.local.place import Labels, RevisionPlace, write_json
from stageway.targets.local.process import Process

if TYPE_CHECKING:
    from stageway.targets.local.service import Service

CRASHES = 5
"""Quick crashes in a row after which a revision is left alone."""
QUICK = 60.0
"""A process that ends within so many seconds has crashed quickly."""
GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL."""
TAIL = 20


class Revision:
    """A revision that has a process, or should have one."""

    def __init__(self, service: Service, place: RevisionPlace, labels: Labels, launch: Mapping[str, Any]) -> None:
        self.service = service
        self.place = place
        self.labels = labels
        self.launch = launch
        self.backend = Backend(place.name, str(launch["socket"]))
        self.process: Process | None = None
        self.health = "stopped"
        self.reason = ""
        self.crashes = 0
        self.restarts = labels.restarts
        self.settled = asyncio.Event()
        self.keeping: asyncio.Task[None] | None = None
        self.leaving: asyncio.Task[None] | None = None
        self.ending = False

    async def start(self) -> None:
        """Start the process and wait until it answers. Raises ``RefusedError``, and then there is no process."""
        self._say("starting")
        nonce = secrets.token_hex(16)
        try:
            self._label(nonce=nonce, pid=None, started=None, restarts=self.restarts)
            Path(self.backend.socket).unlink(missing_ok=True)
            ControlFile.create(self.place.control, int(self.launch["workers"])).close()
            self.process = Process.start(
                self.launch["argv"],
                self.launch["env"],
                Path(self.launch["cwd"]),
                place=self.place.folder,
                log=self.place.log,
                nonce=nonce,
                umask=self.service.umask,
            )
        except OSError as error:
            raise self._cannot_start(error) from error
        try:
            self._label(pid=self.process.pid, started=self.process.started)
            await self.answering()
        except BaseException as error:
            process, self.process = self.process, None
            await process.kill()
            if isinstance(error, OSError):
                raise self._cannot_start(error) from error
            raise

    def _cannot_start(self, error: OSError) -> RefusedError:
        where = error.filename or self.launch["argv"][0]
        return RefusedError(f"{self.labels.model} cannot start: {where}: {error.strerror}")

    async def answering(self) -> None:
        """Wait until the process answers. Raises ``RefusedError``."""
        loop = asyncio.get_running_loop()
        allowed = float(self.launch["ready_timeout"])
        end = loop.time() + allowed
        while not await self._healthy(max(0.05, min(5.0, end - loop.time()))):
            if self.process is None or not self.process.alive:
                raise RefusedError(self.why_ended(), detail=self.tail())
            if loop.time() > end:
                key = f"stages.{self.labels.stage}.ready-timeout"
                why = f"{self.labels.model} did not answer within {allowed:g} s; {key} can allow more"
                raise RefusedError(why, detail=self.tail())
            await asyncio.sleep(0.03)
        self.backend.ready = True
        self._say("ready")
        self.service.settle()

    async def _healthy(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(self.backend.socket)
                try:
                    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return line.split(b" ")[1:2] == [b"200"]

    def keep(self, *, adopted: bool = False) -> None:
        """See to it from now on that there is a process that answers."""
        self.keeping = asyncio.get_running_loop().create_task(self._keep(adopted))

    async def _keep(self, adopted: bool) -> None:
        why = ""
        if adopted:
            try:
                await self.answering()
            except RefusedError as error:
                why = error.message
                await self._gone()
        while True:
            if self.process is not None:
                born = time.monotonic()
                await self.process.ended()
                why = self.why_ended()
                await self._gone(forget=time.monotonic() - born > QUICK)
            if self.crashes >= CRASHES:
                self._say("failed", f"ended {self.crashes} times in a row; the last time: {why}")
                return
            if self.crashes:
                self._say("starting", why)
                await asyncio.sleep(0.25 * 2 ** (self.crashes - 1))
                self.restarts += 1
            try:
                await self.start()
            except RefusedError as error:
                why = error.message
                self.crashes += 1

    async def _gone(self, *, forget: bool = False) -> None:
        """Take notice that the process has ended, with all that it started."""
        self.backend.ready = False
        self.service.settle()
        self.crashes = 1 if forget else self.crashes + 1
        if self.process is not None:
            await self.process.kill()
        self.process = None

    async def halt(self, grace: float = GRACE) -> None:
        """End the process and do not start it again."""
        if self.keeping is not None:
            self.keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self.keeping
            self.keeping = None
        if self.process is not None:
            await self.process.end(grace)
            self.process = None
        self.backend.ready = False
        self._say("stopped")
        Path(self.backend.socket).unlink(missing_ok=True)

    def drain(self, on: bool) -> None:
        """Tell the process whether its replies shall say ``Connection: close``."""
        with suppress(OSError), closing(ControlFile.open(self.place.control)) as control:
            control.draining = on

    def why_ended(self) -> str:
        """Say in a sentence why the process is not there: its own, if it wrote one."""
        said = next(iter(logs.tail(self.place.log, 1)), "")
        why = why_not_started(said)
        if why:
            return f"{self.labels.model} cannot start: {why}"
        how = self.process.how_ended if self.process is not None else "ended"
        return f"the process of {self.labels.model} {how}"

    def tail(self) -> str:
        return "\n".join(logs.tail(self.place.log, TAIL))

    def observed(self, weight: float) -> dict[str, Any]:
        return {
            "name": self.place.name,
            "release": self.labels.release,
            "label": self.labels.model,
            "weight": weight,
            "health": self.health,
            "since": self.labels.since,
            "restarts": self.restarts,
            "reason": self.reason,
            "log_tail": self.tail() if self.health == "failed" else "",
        }

    def _label(self, **changes: Any) -> None:
        self.labels = replace(self.labels, **changes)
        write_json(self.place.labels_file, self.labels.to_json())

    def _say(self, health: str, reason: str = "") -> None:
        self.health, self.reason = health, reason
        if health == "starting":
            self.settled.clear()
        else:
            self.settled.set()
