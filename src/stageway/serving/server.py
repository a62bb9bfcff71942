"""The parent process: granian and its workers, one address, and the start-up of the whole.

A worker that dies later is started again by granian. One that fails to start ends the service: trying again would give
the same answer, and whoever started us wants to know. A Unix socket appears under its name only when all are ready.
"""

from __future__ import annotations

import errno
import functools
import inspect
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Optional

from granian import Granian, __version__
from granian.http import HTTP1Settings

from stageway.serving import worker
from stageway.serving.control import ControlFile
from stageway.serving.scorer import StartError
from stageway.serving.settings import Settings

IDLE_MILLISECONDS = 300_000
LONGEST_SOCKET_PATH = 103
LISTEN_SECONDS = 10.0
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "stageway-serving: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "loggers": {"_granian": {"handlers": ["stderr"], "level": "WARNING", "propagate": False}},
}


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; ``StartError`` when the service cannot start, or cannot go on."""
    where = _socket_options(settings) if settings.uds else {"address": settings.host, "port": _free_port(settings)}
    control = ControlFile.open(settings.control)
    control.ready = False
    reader, writer = multiprocessing.Pipe(duplex=False)
    server = Granian(
        "stageway.serving",
        interface="rsgi",
        workers=settings.workers,
        http="1",
        http1_settings=HTTP1Settings(header_read_timeout=IDLE_MILLISECONDS),
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=settings.stop_timeout,
        log_level="warning",
        log_dictconfig=LOGGING,
        **where,
    )
    crew = Crew(server, settings, control)
    threading.Thread(target=crew.listen, args=(reader,), name="crew", daemon=True).start()
    # A terminal that goes away ends the service like any other stop; granian would start the workers afresh.
    server.on_startup(lambda: signal.signal(signal.SIGHUP, server.signal_handler_interrupt))
    try:
        server.serve(target_loader=functools.partial(worker.load, settings, writer), wrap_loader=False)
    except SystemExit as error:
        if error.code:
            crew.failure = crew.failure or "its workers end again and again; the log above says why"
    finally:
        control.ready = False
        crew.leave()
    if crew.failure:
        raise StartError(crew.failure)


class Crew:
    """What the parent knows of its workers, from their messages."""

    def __init__(self, server: Any, settings: Settings, control: ControlFile) -> None:
        self._server, self._settings, self._control = server, settings, control
        self._starting: "set[int]" = set()
        self._ready = 0
        self._published: Optional[os.stat_result] = None
        self.failure = ""

    def listen(self, reader: Any) -> None:
        """Read messages until nobody is left to write them; the first failure stops the server."""
        while True:
            try:
                kind, pid, sentence = reader.recv()
            except (EOFError, OSError):
                return
            if kind == worker.STARTING:
                if any(not _alive(earlier) for earlier in self._starting):
                    self._fail("a worker ended before it was ready; the log above may say why")
                self._starting.add(pid)
            elif kind == worker.FAILED:
                self._fail(sentence)
            else:
                self._starting.discard(pid)
                self._ready += 1
                if self._ready == self._settings.workers:
                    self._publish()

    def leave(self) -> None:
        """Take the Unix socket's name away, unless a successor has put its own there."""
        if self._published is None:
            return
        path = Path(self._settings.uds)
        try:
            if path.stat().st_ino == self._published.st_ino:
                path.unlink()
        except FileNotFoundError:
            pass

    def _publish(self) -> None:
        if not self._listens():
            self._fail("its workers are ready and do not listen; the log above may say why")
            return
        self._control.ready = True
        if self._settings.uds:
            early = _early(self._settings.uds)
            self._published = early.stat()
            early.replace(self._settings.uds)
        count = self._settings.workers
        workers = "1 worker" if count == 1 else "{} workers".format(count)
        address = "unix:" + self._settings.uds
        if not self._settings.uds:
            address = "http://{}:{}".format(self._server.bind_addr, self._server.bind_port)
        print("stageway-serving: ready on {}, {}".format(address, workers), file=sys.stderr, flush=True)

    def _listens(self) -> bool:
        """Wait until connections are taken: a worker that is ready has still to begin to listen."""
        uds = self._settings.uds
        address: Any = str(_early(uds)) if uds else (self._server.bind_addr, self._server.bind_port)
        family = socket.AF_UNIX if uds else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        end = time.monotonic() + LISTEN_SECONDS
        while not self.failure and time.monotonic() < end:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(address)
                    return True
                except OSError:
                    time.sleep(0.002)
        return False

    def _fail(self, sentence: str) -> None:
        self.failure = self.failure or sentence
        self._server.signal_handler_interrupt()


def _socket_options(settings: Settings) -> "dict[str, Any]":
    if "uds_permissions" not in inspect.signature(Granian.__init__).parameters:
        sentence = "--uds {}: granian {} serves on ports only; use --port, or Python 3.10 or later"
        raise StartError(sentence.format(settings.uds, __version__))
    length = len(os.fsencode(Path(settings.uds).absolute()))
    if length > LONGEST_SOCKET_PATH:
        sentence = "--uds {}: the path has {} bytes, a Unix socket takes {}; use a shorter folder"
        raise StartError(sentence.format(settings.uds, length, LONGEST_SOCKET_PATH))
    folder = Path(settings.uds).parent
    if not folder.is_dir():
        raise StartError("--uds {}: there is no folder {}".format(settings.uds, folder))
    early = _early(settings.uds)
    if early.exists():
        early.unlink()
    return {"uds": early, "uds_permissions": 0o600}


def _early(uds: str) -> Path:
    """Return where the socket lives until all workers are ready: beside its name, as short as a path can be."""
    return Path(uds).absolute().with_name("." + str(os.getpid()))


def _free_port(settings: Settings) -> int:
    """Return the port, having bound it once: granian shares ports, so one in use would not be noticed."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            why = "the port is in use; choose another" if error.errno == errno.EADDRINUSE else error.strerror
            raise StartError("--host {} --port {}: {}".format(settings.host, settings.port, why)) from error
        return int(probe.getsockname()[1])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
