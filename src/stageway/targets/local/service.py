"""One service in the keeper: its revisions, who gets the traffic, and how one takes over from another.

Every step is written to the place before the next one, so that a keeper that is killed between any two leaves what the
next keeper, or the same request again, can finish: a revision without a share of the traffic is ended and cleared.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stageway.errors import ConfigError, RefusedError, TargetError
from stageway.serving.control import ControlFile
from stageway.targets.local import logs
from stageway.targets.local.front import HOST, Backend, Front
from stageway.targets.local.place import Labels, RevisionPlace, ServiceFile, ServicePlace, write_json
from stageway.targets.local.process import Process, sweep

CANNOT_START = "stageway-serving: cannot start: "
SHARES = 10_000
"""Parts that the traffic is divided into."""
CRASHES = 5
"""Quick crashes in a row after which a revision is left alone."""
QUICK = 60.0
"""A process that ends within so many seconds has crashed quickly."""
GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL."""
TAIL = 20
PORTS = range(20_000, 32_000)
"""Where free ports are looked for: below those that systems give to outgoing connections."""


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
        if said.startswith(CANNOT_START):
            return f"{self.labels.model} cannot start: {said.removeprefix(CANNOT_START)}"
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


class Service:
    """A service of this workspace. Requests that change it are done one after the other."""

    def __init__(self, place: ServicePlace, runtime: Path, umask: int) -> None:
        self.place = place
        self.runtime = runtime
        self.umask = umask
        self.file: ServiceFile | None = None
        self.revisions: dict[str, Revision] = {}
        self.front = Front(asyncio.get_running_loop(), place.name)
        self.listening: int | None = None
        self.trouble = ""
        self.lock = asyncio.Lock()

    @property
    def weights(self) -> dict[str, float]:
        return self.file.weights if self.file is not None else {}

    @property
    def idle(self) -> bool:
        """There is nothing of it, and nothing under way."""
        return self.file is None and not self.revisions and not self.lock.locked()

    def settle(self) -> None:
        """Let the front know who is ready and who gets what."""
        for name, revision in self.revisions.items():
            leaving = revision.leaving is not None
            revision.backend.weight = 0 if leaving else round(self.weights.get(name, 0.0) * SHARES)
        self.front.backends = [revision.backend for revision in self.revisions.values()]
        self.front.settle()

    # What a client asks

    async def apply(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """Make a revision the one that answers, or say that its app root is needed for that."""
        async with self.lock:
            labels = Labels.from_json(ask["labels"])
            revision = await self._staying(labels.revision)
            runs = revision is not None and revision.health == "ready"
            app = Path(ask["app"]) if "app" in ask else None
            if not runs and (app is None or not app.is_dir()):
                return {"needs": "app"}
            bound = self._bind(ask.get("port"), labels.stage)
            try:
                if not runs and app is not None:
                    await self._bring_in(labels, ask["launch"], app)
            except BaseException:
                if bound is not None:
                    bound.close()
                raise
            await self._listen(bound)
            assert self.listening is not None
            asked = ask.get("port") is not None
            chosen = not asked and (self.file is None or self.file.chosen or self.file.port != self.listening)
            weights = _with(self.weights, labels.revision, float(ask.get("weight", 1.0)), set(self.revisions))
            self._share(ServiceFile(self.place.name, labels.stage, self.listening, chosen, weights))
            return self.observed()

    async def route(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Share the traffic; a revision that is not named leaves."""
        async with self.lock:
            if self.file is None:
                raise TargetError(f"no service is called {self.place.name!r} here; `stageway deploy` makes one")
            for name in weights:
                if await self._staying(name) is None:
                    known = ", ".join(self.revisions) or "none"
                    raise TargetError(f"service {self.place.name}: no revision is called {name!r}; there are: {known}")
            self._share(replace(self.file, weights={name: float(share) for name, share in weights.items()}))
            return self.observed()

    async def delete(self) -> None:
        async with self.lock:
            await self._end(clear=True)
            self.file = None
            self.place.file.unlink(missing_ok=True)
            shutil.rmtree(self.place.folder, ignore_errors=True)

    async def stop(self, *, remember: bool) -> bool:
        """End all processes and give up the port; say whether anything ran. ``resume`` brings it back.

        Without *remember* nothing is written: the place is not ours any more.
        """
        async with self.lock:
            ran = any(revision.process is not None for revision in self.revisions.values())
            if self.file is not None and remember:
                self.file = replace(self.file, stopped=True)
                with suppress(OSError):  # ending is what matters, on a full disk too
                    write_json(self.place.file, self.file.to_json())
            await self._end(clear=False)
            return ran

    async def resume(self) -> dict[str, Any]:
        """Start what was stopped or has failed, and wait until it answers or has failed again."""
        async with self.lock:
            if self.file is not None:
                await self._listen(self._bind(None, self.file.stage))
                self.file = replace(self.file, stopped=False)
                write_json(self.place.file, self.file.to_json())
                for name in self.weights:
                    revision = self.revisions.get(name)
                    if revision is not None and revision.health in ("stopped", "failed"):
                        revision.crashes = 0
                        revision.settled.clear()
                        revision.keep()
                self.settle()
            for revision in list(self.revisions.values()):
                await revision.settled.wait()
            return self.observed()

    def observed(self) -> dict[str, Any]:
        revisions = [one.observed(self.weights.get(name, 0.0)) for name, one in self.revisions.items()]
        if self.trouble:
            revisions = [{**one, "health": "failed", "reason": self.trouble} for one in revisions]
        endpoint = f"http://{HOST}:{self.file.port}" if self.file is not None else None
        return {"service": self.place.name, "endpoint": endpoint, "revisions": revisions}

    # What happens by itself

    async def load(self) -> None:
        """Take over from a keeper that is gone: adopt what lives, start what should live, end what should not."""
        self.file = self.place.read()
        await asyncio.gather(*(self._adopt(place) for place in self.place.revisions()))
        if self.file is None or self.file.stopped:
            return
        alive = [one for one in self.revisions.values() if one.process is not None]
        for revision in self.revisions.values():
            revision.keep(adopted=revision.process is not None)
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                for revision in alive:
                    await revision.settled.wait()
        await self.recover_port()

    async def recover_port(self) -> None:
        """Try to get the port that this service had."""
        if self.file is None or self.file.stopped or self.listening is not None:
            return
        try:
            bound = _bound(self.file.port)
        except OSError as error:
            self.trouble = _port_sentence(self.file.port, self.file.stage, error)
        else:
            self.trouble = ""
            await self._listen(bound)

    def rotate_logs(self) -> None:
        for revision in self.revisions.values():
            logs.rotate(revision.place.log)

    # How

    async def _adopt(self, place: RevisionPlace) -> None:
        labels, launch = place.labels(), place.launch()
        process = None
        if labels is not None and labels.nonce is not None:
            process = await asyncio.to_thread(Process.adopt, place.folder, labels.pid, labels.started, labels.nonce)
        if labels is not None and launch is not None and place.name in self.weights:
            revision = self.revisions[place.name] = Revision(self, place, labels, launch)
            if self.file is not None and not self.file.stopped:
                revision.process = process
                return
        if process is not None:
            await process.end(GRACE)
        else:
            await asyncio.to_thread(sweep, place.folder)
        if place.name not in self.weights:
            place.clear()

    async def _staying(self, name: str) -> Revision | None:
        """Return the revision *name*; one that is leaving comes back, if it has not been told to end yet."""
        revision = self.revisions.get(name)
        if revision is None or revision.leaving is None:
            return revision
        if revision.ending:
            await asyncio.wait([revision.leaving])
            return None
        revision.leaving.cancel()
        with suppress(asyncio.CancelledError):
            await revision.leaving
        revision.leaving = None
        revision.drain(False)
        revision.health = "starting"
        revision.settled.clear()
        revision.keep(adopted=True)
        await revision.settled.wait()
        return revision

    async def _bring_in(self, labels: Labels, launch: Mapping[str, Any], app: Path) -> Revision:
        """Start a revision beside the others. When it does not become ready, nothing of it stays but its log."""
        place = self.place.revision(labels.revision)
        former = self.revisions.pop(place.name, None)
        if former is not None:
            await former.halt()
        place.clear()
        place.folder.mkdir(exist_ok=True)
        if place.log.exists():
            place.log.replace(logs.older(place.log))
        app.rename(place.app)
        write_json(place.launch_file, launch)
        revision = self.revisions[place.name] = Revision(
            self, place, replace(labels, since=int(time.time() * 1000)), launch
        )
        self.settle()
        try:
            await revision.start()
        except BaseException as error:
            if place.name in self.weights:  # it is what should run, and nothing else does
                revision.reason, revision.health = str(error), "failed"
                revision.settled.set()
            else:
                del self.revisions[place.name]
                self.settle()
                place.clear()
                self.place.prune()
            raise
        revision.keep()
        return revision

    def _share(self, file: ServiceFile) -> None:
        """Give out the traffic as *file* says, from the next request on; who has no part in it leaves."""
        if file != self.file:
            write_json(self.place.file, file.to_json())
            self.file = file
        for name, revision in self.revisions.items():
            if name not in file.weights and revision.leaving is None:
                if revision.keeping is not None:
                    revision.keeping.cancel()
                revision.health = "draining"
                revision.leaving = asyncio.get_running_loop().create_task(self._leave(revision))
        self.settle()

    async def _leave(self, revision: Revision) -> None:
        """Let a revision finish its requests, then end it."""
        backend = revision.backend
        end = time.monotonic() + float(revision.launch["drain_timeout"])
        while backend.clients and (left := end - time.monotonic()) > 0:
            if any(client.opaque for client in backend.clients):
                revision.drain(True)
            await self.front.emptied(backend, min(1.0, left))
        revision.ending = True
        await revision.halt()
        revision.place.clear()
        self.revisions.pop(revision.place.name, None)
        self.settle()
        self.place.prune()

    async def _end(self, *, clear: bool) -> None:
        """End everything: give up the port, let requests finish, end the processes."""
        for revision in self.revisions.values():
            if revision.leaving is not None:
                revision.leaving.cancel()
        longest = max((float(one.launch["drain_timeout"]) for one in self.revisions.values()), default=0.0)
        self.listening = None
        await self.front.close(longest)
        await asyncio.gather(*(revision.halt() for revision in self.revisions.values()))
        for revision in list(self.revisions.values()):
            if clear or revision.place.name not in self.weights:
                revision.place.clear()
        self.revisions.clear()

    def _bind(self, asked: int | None, stage: str) -> socket.socket | None:
        """Return a socket on the port that is asked for, else the one we had, else a free one; none if we listen."""
        if self.listening is not None and asked in (None, self.listening):
            return None
        had = self.file.port if self.file is not None else None
        try:
            if asked is not None:
                return _bound(asked)
            if had is not None:
                return _bound(had)
        except OSError as error:
            port = asked or had or 0
            if asked is not None or self.file is None or not self.file.chosen:
                raise ConfigError(_port_sentence(port, stage, error)) from error
        return _free(f"{self.place.folder}")

    async def _listen(self, bound: socket.socket | None) -> None:
        if bound is not None:
            await self.front.listen(bound)
            self.listening = bound.getsockname()[1]
            self.trouble = ""


def _with(weights: Mapping[str, float], name: str, weight: float, known: Iterable[str]) -> dict[str, float]:
    """Return *weights* with *weight* for *name*; the others keep the rest in their proportions."""
    others = {one: share for one, share in weights.items() if one != name and one in known}
    total = sum(others.values())
    if weight >= 1 or not total:
        return {name: 1.0}
    return {**{one: round(share / total * (1 - weight), 6) for one, share in others.items()}, name: weight}


def _bound(port: int) -> socket.socket:
    """Return a listening socket. Without SO_REUSEPORT, so that nobody shares the port with us unseen."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
        bound.listen(1024)
    except BaseException:
        bound.close()
        raise
    return bound


def _free(seed: str) -> socket.socket:
    """Return a listening socket on a free port, for the same *seed* mostly the same one."""
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
    for step in range(len(PORTS)):
        with suppress(OSError):
            return _bound(PORTS[(start + step) % len(PORTS)])
    raise TargetError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free on {HOST}")


def _port_sentence(port: int, stage: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        way = f"give stages.{stage}.port another one in stageway.yml, or leave it out for a free one"
        return f"port {port} is in use by another program; {way}"
    way = f"give stages.{stage}.port one from 1024 to 65535 in stageway.yml, or leave it out for a free one"
    return f"port {port} cannot be used: {error.strerror}; {way}"
