"""The parent process: one address, a crew of workers, and granian, which does HTTP in each of them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Callable

from granian.http import HTTP1Settings
from granian.net import SocketHolder
from granian.server.mp import MPServer

from stageway.serving import logs, tls
from stageway.serving.address import Address
from stageway.serving.control import ControlFile
from stageway.serving.crew import Crew
from stageway.serving.scorer import StartError
from stageway.serving.settings import Settings
from stageway.serving.terminal import Terminal

BACKLOG = 1024
OLDEST_TLS = "tls1.2"


def serve(settings: Settings, terminal: Terminal) -> None:
    """Serve until SIGTERM or SIGINT; ``StartError`` when the service cannot start, or cannot go on.

    SIGHUP replaces the workers by new ones, see ``crew``.
    """
    tls.check(settings)
    control = ControlFile.open(settings.control)
    control.ready, control.wanted = False, settings.workers
    address = Address(settings)
    crew = Crew(settings, control, address, terminal)
    try:
        _Server(settings, address, crew).serve(target_loader=_unused, wrap_loader=False)
    finally:
        control.ready, control.serving = False, 0
        address.leave()
    if crew.failure:
        raise StartError(crew.failure)


class _Server(MPServer):  # type: ignore[misc]
    """granian with our own parent: it knows how to make a worker process, the crew knows when.

    granian's own parent loses connections where it replaces workers, and ends when a new worker does not start.
    """

    def __init__(self, settings: Settings, address: Address, crew: Crew) -> None:
        super().__init__(
            "stageway.serving",
            interface="rsgi",
            workers=settings.workers,
            http="1",
            http1_settings=HTTP1Settings(header_read_timeout=int(settings.idle_timeout * 1000)),
            websockets=False,
            backlog=BACKLOG,
            log_level="warning",
            log_dictconfig=logs.of_granian(settings),
            **_secured(settings),
        )
        self._address, self._crew = address, crew

    def _serve(self, spawn_target: Any, target_loader: Any) -> None:
        held = self._address.socket
        # Workers that are spawned and not forked get the descriptor because the socket itself is among the arguments.
        self._ssp, self._sso = None, held
        # (descriptor, whether it is a Unix socket, backlog)
        self._shd = SocketHolder(held.fileno(), self._address.unix, BACKLOG)

        def spawn(seat: int, load: Callable[[], Any]) -> Any:
            return self._spawn_worker(seat, spawn_target, load).inner

        self._crew.run(spawn)


def _secured(settings: Settings) -> "dict[str, Any]":
    if not settings.tls_certificate:
        return {}
    options = {"ssl_cert": Path(settings.tls_certificate), "ssl_key": Path(settings.tls_key)}
    # The line for Python 3.9 has no such setting, and takes TLS 1.2 and 1.3.
    if "ssl_protocol_min" in inspect.signature(MPServer.__init__).parameters:
        from granian.constants import SSLProtocols

        return {**options, "ssl_protocol_min": SSLProtocols(OLDEST_TLS)}
    return options


def _unused() -> None:
    raise AssertionError("the crew gives each worker its own loader")
