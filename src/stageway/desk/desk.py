"""Serve at the desk until told to stop: start the service, say where it is, reload it when its files change."""

from __future__ import annotations

import errno
import json
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from stageway.desk import example
from stageway.desk.choice import Choice
from stageway.desk.place import Place
from stageway.desk.service import STOP_SECONDS, Service
from stageway.desk.watching import Watching, watched
from stageway.errors import ConfigError

RELOAD_SECONDS = 60.0
"""How long a change waits for what became of the one before it."""

NO_SUCH_HOST = "; 127.0.0.1 is this machine alone, 0.0.0.0 all its addresses"
WAYS_OUT = {
    errno.EADDRINUSE: "; --port 0 takes a free one",
    errno.EADDRNOTAVAIL: NO_SUCH_HOST,
    errno.EACCES: "; take a port from 1024 on",
}

ONE_REQUEST_SECONDS = 0.5
"""Signals this close together are one request: ``timeout`` and terminals send a process and its group one each."""


@dataclass(frozen=True)
class Ready:
    """A service that answers: its address, a command to try it, and what makes it reload."""

    address: str
    docs: str
    serves: str
    model: str
    try_it: str
    hint: str
    """What is to be done to the command first, if anything."""
    reloads_on: str


@dataclass(frozen=True)
class Told:
    """Where the desk says things: that it is ready, what the service logs, and what became of a change."""

    ready: Callable[[Ready], None]
    log: Callable[[str], None]
    reloaded: Callable[[str], None]
    """Gets ``score.py changed``."""
    refused: Callable[[str, str], None]
    """Gets ``score.py changed`` and why the service goes on as it was."""


@dataclass(frozen=True)
class Where:
    """The address to serve on, and what changes how a request to it is written."""

    host: str
    port: int
    guarded: bool = False
    secure: bool = False


def serve(
    choice: Choice,
    where: Where,
    arguments: Sequence[str],
    told: Told,
    *,
    reload: bool = False,
    unwatched: tuple[Path, ...] = (),
) -> None:
    """Serve *choice* until SIGINT, SIGTERM or SIGHUP. *arguments* are further ones of the server.

    Raises ``ConfigError`` for a port in use, ``RefusedError`` when the service does not start or ends by itself.
    """
    check_port(where.host, where.port)
    with tempfile.TemporaryDirectory(prefix="stageway-serve-") as scratch:
        app = Path(scratch, "app")
        app.mkdir()
        place = Place(choice, app)
        reloads = _Reloads(place, told)
        service = reloads.service = Service(told.log, reloads.settled)
        # Watched from before the start, so that a change during it is not missed.
        watching = _watching(choice, unwatched, reloads) if reload else nullcontext()
        with _stopped_by_signals(service), watching:
            address = service.start(_arguments(choice, place, where, arguments), place.app, place.variables)
            if not address:
                return
            told.ready(_ready(choice, address, where, reload))
            reloads.serving.set()
            service.wait()


class _Reloads:
    """One change after the other: the next is not begun before the service said what became of this one."""

    service: Service

    def __init__(self, place: Place, told: Told) -> None:
        self._place, self._told = place, told
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._cause = ""
        self.serving = threading.Event()
        """Set when there is something to reload; changes wait for it."""

    def changed(self, what: str) -> None:
        self.serving.wait()
        with self._lock:
            self._cause = f"{what} changed"
            self._settled.clear()
            self._place.lay_out()
            self.service.reload()
            self._settled.wait(RELOAD_SECONDS)

    def settled(self, why: str) -> None:
        cause, self._cause = self._cause or "a signal came", ""
        if why:
            self._told.refused(cause, why)
        else:
            self._told.reloaded(cause)
        self._settled.set()


@contextmanager
def _watching(choice: Choice, left_out: tuple[Path, ...], reloads: _Reloads) -> Iterator[None]:
    watching = Watching(choice, left_out, reloads.changed)
    try:
        yield
    finally:
        watching.stop()


def check_port(host: str, port: int) -> None:
    """Raise ``ConfigError`` when *port* is taken; the server would find out only after the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            way_out = WAYS_OUT.get(error.errno or 0, "") if not isinstance(error, socket.gaierror) else NO_SUCH_HOST
            raise ConfigError(f"--host {host} --port {port}: {why}{way_out}") from error
        except OverflowError as error:
            raise ConfigError(f"--port {port}: a port is a number from 0 to 65535") from error


def _arguments(choice: Choice, place: Place, where: Where, more: Sequence[str]) -> list[str]:
    found = ["--host", where.host, "--port", str(where.port), "--stop-timeout", str(STOP_SECONDS), "--docs"]
    script = place.entry_script
    found += ["--entry-script", script] if script is not None else ["--framework", str(choice.framework)]
    if choice.contract is not None:
        path = place.app.with_name("contract.json")
        path.write_text(json.dumps(choice.contract.to_json()), encoding="utf-8")
        found += ["--contract", str(path)]
    if choice.models:
        found += ["--model-version", "+".join(one.place.label for one in choice.models)]
    return [*found, *more]


def _ready(choice: Choice, address: str, where: Where, reload: bool) -> Ready:
    line, hint = example.command(address, found=choice.samples, guarded=where.guarded, secure=where.secure)
    model = "+".join(one.place.label for one in choice.models)
    return Ready(address, f"{address}/docs", choice.said, model, line, hint, watched(choice) if reload else "")


@contextmanager
def _stopped_by_signals(service: Service) -> Iterator[None]:
    """End the service at the first signal, in order; at a later one, at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[float] = []

    def stop(number: int, frame: object) -> None:
        # It runs in the thread that waits for the service, so it takes no lock that the thread may hold; and the next
        # signal may come between any two of these lines.
        now = time.monotonic()
        asked.append(now)
        if now is asked[0]:
            threading.Thread(target=service.stop, name="stop", daemon=True).start()
        elif now - asked[0] > ONE_REQUEST_SECONDS:
            service.kill()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        service.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
