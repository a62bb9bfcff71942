"""The keeper: one detached process per workspace that owns the stable ports and keeps the services alive.

``python -m stageway.targets.local.keeper WORKSPACE`` returns when a keeper is ready, the one it started or another one.
It knows processes, sockets and the files of ``place``; nothing of models, stages' gates, store or registry.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from stageway.errors import StagewayError, TargetError
from stageway.targets.local import wire
from stageway.targets.local.place import (
    ServicePlace,
    boot,
    keeper_file,
    lock_file,
    log_file,
    runtime_folder,
    services,
    unwritable,
    write_json,
)
from stageway.targets.local.process import sweep_strays
from stageway.targets.local.service import Service

WATCH = 1.0
SWEEP = 5
"""Seconds after which an unused way from the front to a revision is closed."""
GONE = 3
"""Looks in a row that do not find the workspace, until it is taken for gone."""
IDLE = 30.0
"""Seconds after which a keeper without services ends itself."""
LOG_LONGEST = 2**20


class Keeper:
    """All services of one workspace."""

    def __init__(self, state: Path, runtime: Path, lock: int, umask: int) -> None:
        self.state = state
        self.runtime = runtime
        self.lock = lock
        self.umask = umask
        self.services: dict[str, Service] = {}
        self.asked = time.monotonic()
        self.finished = asyncio.Event()
        self.busy: set[asyncio.Task[Any]] = set()
        self.missed = 0

    async def run(self, ready: Callable[[], None]) -> None:
        """Take over what is there, answer clients, and return when there is nothing to keep any more."""
        await asyncio.to_thread(sweep_strays, self.state / "services")
        for place in services(self.state):
            self.service(place.name)
        await asyncio.gather(*(service.load() for service in self.services.values()))
        server = await self.listen()
        ready()
        watching = asyncio.create_task(self.watch())
        await self.finished.wait()
        watching.cancel()
        server.close()
        await asyncio.sleep(0)

    async def listen(self) -> asyncio.Server:
        """Let clients reach us, and say where."""
        path = self.runtime / wire.SOCKET
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self.client, path, limit=wire.LONGEST)
        me = psutil.Process()
        where = {"pid": me.pid, "started": me.create_time(), "boot": boot(), "socket": str(path)}
        write_json(keeper_file(self.state), where)
        return server

    def service(self, name: str) -> Service:
        if name not in self.services:
            self.services[name] = Service(ServicePlace(self.state, name), self.runtime, self.umask)
        return self.services[name]

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client; what it asked for is done to the end, whether it stays or not."""
        with contextlib.suppress(ConnectionError, ValueError, asyncio.LimitOverrunError):
            while line := await reader.readline():
                self.asked = time.monotonic()
                task = asyncio.create_task(self.answer(line))
                self.busy.add(task)
                task.add_done_callback(self.busy.discard)
                writer.write(wire.encode(await asyncio.shield(task)))
                await writer.drain()
        writer.close()

    async def answer(self, line: bytes) -> dict[str, Any]:
        try:
            ask = wire.decode(line, any_version=b'"do": "down"' in line)
            done: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
                "hello": self.hello,
                "apply": lambda ask: self.service(ask["service"]).apply(ask),
                "observe": self.observe,
                "route": lambda ask: self.service(ask["service"]).route(ask["weights"]),
                "delete": self.delete,
                "up": self.up,
                "down": self.down,
            }
            return {"done": await done[ask["do"]](ask)}
        except StagewayError as error:
            return wire.error_to_json(error)
        except OSError as error:
            return wire.error_to_json(TargetError(unwritable(error)))
        except asyncio.CancelledError:
            return wire.error_to_json(TargetError("the keeper was told to stop before this was done"))
        except Exception as error:  # noqa: BLE001 - a bug of ours must not end the services
            traceback.print_exc()
            return {"error": "bug", "message": f"{type(error).__name__}: {error}"}
        finally:
            for name in [name for name, service in self.services.items() if service.idle]:
                del self.services[name]

    async def hello(self, ask: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid(), "runtime": str(self.runtime)}

    async def observe(self, ask: dict[str, Any]) -> dict[str, Any]:
        service = self.service(ask["service"])
        await service.sound()
        return service.observed()

    async def delete(self, ask: dict[str, Any]) -> None:
        await self.service(ask["service"]).delete()

    async def up(self, ask: dict[str, Any]) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(service.resume() for service in self.services.values())))

    async def down(self, ask: dict[str, Any]) -> list[str]:
        """Stop everything and end."""
        stopped = await self.stop(remember=True)
        asyncio.get_running_loop().call_later(0.05, self.finished.set)
        return stopped

    async def stop(self, *, remember: bool) -> list[str]:
        for task in self.busy - {asyncio.current_task()}:
            task.cancel()
        kept = list(self.services.items())  # what is cancelled above may leave meanwhile
        ran = await asyncio.gather(*(service.stop(remember=remember) for _, service in kept))
        return [name for (name, _), did in zip(kept, ran, strict=True) if did]

    async def watch(self) -> None:
        """Look after what changes by itself: long logs, unused connections, and the end of the workspace."""
        seconds = 0
        while not self.finished.is_set():
            await asyncio.sleep(WATCH)
            seconds += 1
            try:
                await self.look(seconds)
            except Exception:  # noqa: BLE001 - whatever fails in one look, the next one is needed
                note("looking after the services failed")
                traceback.print_exc()

    async def look(self, seconds: int) -> None:
        """Look once, *seconds* after the start."""
        self.missed = 0 if self.workspace_is_here() else self.missed + 1
        if self.missed >= GONE:
            note("the workspace is gone, so its services end")
            await self.stop(remember=False)
            self.finished.set()
            return
        for service in list(self.services.values()):
            service.rotate_logs()
            await service.recover_port()
            if seconds % SWEEP == 0:
                service.front.sweep()
        if not self.services and not self.busy and time.monotonic() - self.asked > IDLE:
            self.finished.set()

    def workspace_is_here(self) -> bool:
        """Say whether the folder is still where it was, with our lock in it."""
        held = os.fstat(self.lock)
        try:
            found = lock_file(self.state).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # a disk that cannot say it now has not said no
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def note(text: str) -> None:
    """Write a line to the keeper's log."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def locked(state: Path) -> int | None:
    """Return the lock that only one keeper of a workspace has; ``None`` when another one has it."""
    handle = os.open(lock_file(state), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def keep(state: Path, ready: Callable[[str], None]) -> None:
    """Be the keeper of the workspace whose state is in *state*; say ``ready`` or what is wrong once."""
    import uvloop

    umask = os.umask(0o077)
    try:
        lock = locked(state)
    except OSError as error:
        ready(unwritable(error))
        return
    if lock is None:
        ready("ready")
        return

    with contextlib.suppress(OSError, ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        runtime = runtime_folder(state)
        note(f"keeper {os.getpid()} starts")
        keeper: Keeper | None = None

        async def run() -> None:
            nonlocal keeper
            keeper = Keeper(state, runtime, lock, umask)
            await keeper.run(functools.partial(ready, "ready"))

        uvloop.run(run())
    except StagewayError as error:
        ready(error.message)
        return
    except OSError as error:
        ready(unwritable(error))
        raise
    except Exception as error:
        ready(f"the keeper failed: {error}; {log_file(state)} says more")
        raise
    if keeper is not None and keeper.workspace_is_here():
        keeper_file(state).unlink(missing_ok=True)
    note(f"keeper {os.getpid()} ends")
    shutil.rmtree(runtime, ignore_errors=True)


def detach(state: Path) -> str:
    """Start the keeper as a process without parent or terminal; return what it said when it was ready or gave up."""
    log = log_file(state)
    cut = log.exists() and log.stat().st_size > LOG_LONGEST
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if cut else 0), 0o600)
    hear, say = os.pipe()
    if os.fork():
        os.close(say)
        with os.fdopen(hear) as answer:
            return answer.read()
    os.close(hear)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    for handle, stream in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(handle, stream)

    def ready(text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(say, text.encode())
            os.close(say)

    try:
        keep(state, ready)
    except BaseException:  # noqa: BLE001 - the end of the process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def main() -> None:
    state = Path(sys.argv[1])
    try:
        said = detach(state)
    except OSError as error:
        said = unwritable(error)
    print(said, end="")
    sys.exit(0 if said == "ready" else 1)


if __name__ == "__main__":
    main()
