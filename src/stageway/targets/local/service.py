"""One service in the keeper: its revisions, who gets the traffic, and how one takes over from another.

Every step is written to the place before the next one, so that a keeper that is killed between any two leaves what the
next keeper, or the same request again, can finish: a revision without a share of the traffic is ended and cleared.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stageway.errors import ConfigError, TargetError
from stageway.targets.local import logs, ports
from stageway.targets.local.front import HOST, Front
from stageway.targets.local.place import Labels, RevisionPlace, ServiceFile, ServicePlace, socket_path, write_json
from stageway.targets.local.process import Process, of_place, sweep
from stageway.targets.local.revision import GRACE, Revision

SHARES = 10_000
"""Parts that the traffic is divided into."""
RELEASED = 1.0
"""Seconds in which the system takes back the ports of a keeper that was killed."""


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
        self.unread: TargetError | None = None
        self.loading = asyncio.Lock()
        self.lock = asyncio.Lock()

    @property
    def weights(self) -> dict[str, float]:
        return self.file.weights if self.file is not None else {}

    @property
    def idle(self) -> bool:
        """There is nothing of it, and nothing under way."""
        return self.file is None and self.unread is None and not self.revisions and not self.lock.locked()

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
        await self.sound()
        async with self.lock:
            labels = Labels.from_json(ask["labels"])
            revision = await self._staying(labels.revision)
            runs = revision is not None and revision.health == "ready"
            app = Path(ask["app"]) if "app" in ask else None
            if not runs and (app is None or not app.is_dir()):
                return {"needs": "app", "socket": str(socket_path(self.runtime, self.place.name, labels.revision))}
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
            try:
                self._share(ServiceFile(self.place.name, labels.stage, self.listening, chosen, weights))
            except OSError:
                if not runs:
                    await self._send_away(labels.revision)
                raise
            return self.observed()

    async def route(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Share the traffic; a revision that is not named leaves."""
        await self.sound()
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
            self.file, self.unread = None, None
            self.place.file.unlink(missing_ok=True)
            shutil.rmtree(self.place.folder, ignore_errors=True)

    async def stop(self, *, remember: bool) -> bool:
        """End all processes and give up the port; say whether anything ran. ``resume`` brings it back.

        Without *remember* nothing is written: the place is not ours any more.
        """
        async with self.lock:
            ran = any(revision.process is not None for revision in self.revisions.values())
            if self.unread is not None:
                ran = bool(await asyncio.to_thread(of_place, self.place.folder))
            if self.file is not None and remember:
                self.file = replace(self.file, stopped=True)
                with suppress(OSError):  # ending is what matters, on a full disk too
                    write_json(self.place.file, self.file.to_json())
            await self._end(clear=False)
            return ran

    async def resume(self) -> dict[str, Any]:
        """Start what was stopped or has failed, and wait until it answers or has failed again."""
        await self.sound()
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
        try:
            self.file, self.unread = self.place.read(), None
        except TargetError as error:
            self.unread = error  # what should run cannot be told, so nothing is ended
            return
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
        end = time.monotonic() + RELEASED
        await self.recover_port()
        while self.trouble and time.monotonic() < end:
            await asyncio.sleep(0.05)
            await self.recover_port()

    async def sound(self) -> None:
        """Load what could not be read before. Raises ``TargetError`` when it still cannot be."""
        async with self.loading:
            if self.unread is not None:
                await self.load()
                if self.file is None and self.unread is None:  # it was removed to start anew
                    await asyncio.to_thread(sweep, self.place.folder)
        if self.unread is not None:
            raise self.unread

    async def recover_port(self) -> None:
        """Try to get the port that this service had."""
        if self.file is None or self.listening is not None or self.lock.locked():
            return
        async with self.lock:
            if self.file.stopped:
                return
            try:
                bound = ports.bound(self.file.port)
            except OSError as error:
                self.trouble = ports.sentence(self.file.port, self.file.stage, error)
            else:
                await self._listen(bound)

    def rotate_logs(self) -> None:
        for revision in self.revisions.values():
            logs.rotate(revision.place.log)

    # How

    async def _adopt(self, place: RevisionPlace) -> None:
        labels, launch, process = None, None, None
        with suppress(TargetError):
            labels, launch = place.labels(), place.launch()
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

    async def _send_away(self, name: str) -> None:
        """End a revision that was brought in and cannot have its share, and a service that has no other."""
        if name not in self.weights and name in self.revisions:
            revision = self.revisions.pop(name)
            self.settle()
            await revision.halt()
            revision.place.clear()
        if self.file is None:
            await self._end(clear=True)

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
        if self.unread is not None:
            await asyncio.to_thread(sweep, self.place.folder)
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
                return ports.bound(asked)
            if had is not None:
                return ports.bound(had)
        except OSError as error:
            port = asked or had or 0
            if asked is not None or self.file is None or not self.file.chosen:
                raise ConfigError(ports.sentence(port, stage, error)) from error
        return ports.free(f"{self.place.folder}")

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
