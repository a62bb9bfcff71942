"""The one address of a service: bound here, once, and shared by all workers that ever serve on it.

Workers take connections from one queue, so none is lost with a worker, and a port in use is an error. A Unix socket
appears under its name only when all workers are ready.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
from pathlib import Path
from typing import Optional

from stageway.serving.scorer import StartError
from stageway.serving.settings import Settings

LONGEST_SOCKET_PATH = 103


class Address:
    """A bound socket; it takes connections from the moment that the first worker listens."""

    def __init__(self, settings: Settings) -> None:
        self._uds, self._secure = settings.uds, bool(settings.tls_certificate)
        self._published: Optional[os.stat_result] = None
        self.socket = _unix(settings.uds) if settings.uds else _port(settings)
        self.socket.set_inheritable(True)

    @property
    def unix(self) -> bool:
        return bool(self._uds)

    @property
    def text(self) -> str:
        """The address as people write it: ``unix:PATH`` or ``http://HOST:PORT``."""
        if self._uds:
            return "unix:" + self._uds
        host, port = self.socket.getsockname()[:2]
        scheme = "https" if self._secure else "http"
        return "{}://{}:{}".format(scheme, "[{}]".format(host) if ":" in host else host, port)

    @property
    def taken(self) -> bool:
        """Whether connections are taken: a worker that is ready has still to begin to listen."""
        with socket.socket(self.socket.family, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(_early(self._uds)) if self._uds else self.socket.getsockname())
            except OSError:
                return False
        return True

    def publish(self) -> None:
        """Give the Unix socket its name; whoever had it keeps its connections and gets no new ones."""
        if self._uds:
            early = _early(self._uds)
            found = early.stat()
            early.replace(self._uds)
            self._published = found

    def leave(self) -> None:
        """Close the socket, and take its name away unless a successor has put its own there."""
        self.socket.close()
        if not self._uds:
            return
        with contextlib.suppress(FileNotFoundError):
            if self._published is None:
                _early(self._uds).unlink()
            elif Path(self._uds).stat().st_ino == self._published.st_ino:
                Path(self._uds).unlink()


def stop_listening(name: object) -> None:
    """Let this process take no more connections from the socket called *name*; those it has go on.

    granian has no word for it. The other processes share the socket, so it can be neither closed nor shut down: where
    this process has it, it gets one that nobody can reach instead.
    """
    with tempfile.TemporaryDirectory(prefix="stageway-") as folder, socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(Path(folder, "nobody")))
        nobody.listen(1)
        nobody.setblocking(False)
        for number in map(int, os.listdir("/dev/fd")):  # noqa: PTH208 - these are numbers
            if number != nobody.fileno() and _listens_as(number, name):
                os.dup2(nobody.fileno(), number, inheritable=False)


def _listens_as(number: int, name: object) -> bool:
    try:
        found = socket.socket(fileno=os.dup(number))
    except OSError:
        return False
    with found:
        try:
            return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) and found.getsockname() == name
        except OSError:
            return False


def _unix(uds: str) -> socket.socket:
    length = len(os.fsencode(Path(uds).absolute()))
    if length > LONGEST_SOCKET_PATH:
        sentence = "--uds {}: the path has {} bytes, a Unix socket takes {}; use a shorter folder"
        raise StartError(sentence.format(uds, length, LONGEST_SOCKET_PATH))
    early = _early(uds)
    if not early.parent.is_dir():
        raise StartError("--uds {}: there is no folder {}".format(uds, Path(uds).parent))
    if early.exists():
        early.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        bound.bind(str(early))
    except OSError as error:
        bound.close()
        raise StartError("--uds {}: {}".format(uds, error.strerror)) from error
    finally:
        os.umask(mask)
    return bound


def _early(uds: str) -> Path:
    """Return where the socket lives until all workers are ready: beside its name, as short as a path can be."""
    return Path(uds).absolute().with_name("." + str(os.getpid()))


def _port(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        why = "the port is in use; choose another" if error.errno == errno.EADDRINUSE else error.strerror
        raise StartError("--host {} --port {}: {}".format(settings.host, settings.port, why)) from error
    return bound
