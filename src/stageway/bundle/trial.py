"""Start a bundle's real service for a short while, on a Unix socket of its own: for profiles, contracts and tests.

The service is a process group; it is killed at the end. Where the caller itself was killed, the next trial of this
user finds what was left by the note in its folder, and removes it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stageway.bundle.bundle import Bundle
from stageway.contract import Contract
from stageway.errors import RefusedError
from stageway.serving.control import ControlFile
from stageway.serving.logs import why_not_started

PLACE = "/tmp"  # noqa: S108 - Unix socket paths are short (104 bytes on macOS); the folder below is new and private
PREFIX = "stageway-trial-"
NOTE = "trial.json"
LOG_LINES = 30
POLL = 0.02
SAME_START = 2.0
"""Seconds by which a start time may differ between two readings, where it is one of the wall clock."""


@dataclass(frozen=True)
class Reply:
    """What the service answered; header names in lower case, *seconds* from the first byte sent to the last read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(http.client.HTTPConnection):
    """A kept connection over a Unix socket. For one thread; it opens again by itself after the service closed it."""

    def __init__(self, uds: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.uds = uds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.uds))

    def patience(self, seconds: float) -> None:
        """Wait at most *seconds* for the next reply."""
        self.timeout = seconds
        if self.sock is not None:
            self.sock.settimeout(seconds)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request and read the whole reply. Raises ``OSError`` or ``http.client.HTTPException``."""
        sent = dict(headers or {})
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        start = time.perf_counter()
        try:
            self.request(method, path, body=body, headers=sent)
            answer = self.getresponse()
            content = answer.read()
        except BaseException:
            self.close()
            raise
        seconds = time.perf_counter() - start
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content, seconds)


@dataclass
class Trial:
    """A running service. *start_seconds* is what it took from the start of the process until it answered."""

    process: subprocess.Popen[bytes]
    folder: Path
    start_seconds: float = 0.0
    _connection: Connection | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def uds(self) -> Path:
        return self.folder / "s"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """Return the last *lines* of the service's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def connect(self, timeout: float = 60.0) -> Connection:
        """Return a new connection, to be kept by one thread."""
        return Connection(self.uds, timeout)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Ask on the trial's own connection. Raises ``RefusedError`` when the service does not answer any more."""
        self._connection = self._connection or self.connect()
        try:
            return self._connection.ask(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise RefusedError(
                f"{method} {path}: the service gave no answer: {error}", detail=self.log_tail()
            ) from error

    def contract(self) -> Contract:
        """Ask the service for its contract. Raises ``RefusedError`` when it does not say one."""
        answer = self.request("GET", "/contract.json")
        if answer.status != 200:
            raise RefusedError(f"the service does not say its contract: status {answer.status}", detail=self.log_tail())
        return Contract.from_json(answer.json())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


@contextmanager
def serve(
    bundle: Bundle,
    *,
    release: str = "trial",
    version: str | None = None,
    timeout: float = 60.0,
    workers: int = 1,
    env: Mapping[str, str] | None = None,
) -> Iterator[Trial]:
    """Start the service of *bundle*, yield it when it answers, and end it with all its processes.

    Raises ``RefusedError`` with the service's own sentence and its log's last lines when it does not start.
    """
    sweep()
    folder = Path(tempfile.mkdtemp(dir=PLACE, prefix=PREFIX))
    bytecode = bundle.bytecode / str(folder).lstrip("/")
    trial: Trial | None = None
    try:
        _note(folder, None)
        app, control = bundle.unpack(folder / "app"), folder / "control"
        ControlFile.create(control, workers).close()
        launch = bundle.launch(
            app, uds=folder / "s", control=control, workers=workers, release=release, version=version, env=env
        )
        started = time.monotonic()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                launch.argv,
                cwd=launch.cwd,
                env=launch.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        trial = Trial(process, folder)
        _note(folder, process.pid)
        _wait(trial, bundle, started, timeout)
        yield trial
    finally:
        if trial is not None:
            trial.close()
            _end(trial.process)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(bytecode, ignore_errors=True)


def _wait(trial: Trial, bundle: Bundle, started: float, timeout: float) -> None:
    """Return when the service answers healthy: it listens only when every worker's ``init`` is done."""
    while True:
        ended = trial.process.poll()
        if ended is not None:
            why = _way_out(bundle, _reason(trial, ended))
            raise RefusedError(f"the service of {bundle.label} does not start: {why}", detail=trial.log_tail())
        if trial.uds.exists() and _healthy(trial, timeout):
            trial.start_seconds = time.monotonic() - started
            return
        if time.monotonic() - started > timeout:
            raise RefusedError(
                f"the service of {bundle.label} does not answer after {timeout:g} s; see what its init() waits for",
                detail=trial.log_tail(),
            )
        time.sleep(POLL)


def _way_out(bundle: Bundle, reason: str) -> str:
    """Add what a person can do about a module that is missing."""
    if "ModuleNotFoundError" not in reason:
        return reason
    beside = ", or set serve.source-directory when it is a file of yours"
    return f"{reason}; add it to serve.dependencies{beside if bundle.manifest.source_directory is None else ''}"


def _healthy(trial: Trial, timeout: float) -> bool:
    with contextlib.closing(trial.connect(timeout=max(1.0, timeout))) as connection:
        try:
            return connection.ask("GET", "/").status == 200
        except (OSError, http.client.HTTPException):
            return False  # not yet


def _reason(trial: Trial, code: int) -> str:
    log = trial.log.read_text(encoding="utf-8", errors="replace")
    said = [why for why in map(why_not_started, log.splitlines()) if why]
    if said:
        return said[-1]
    if code < 0:
        return f"it was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"it ended with exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group; nothing is lost, as nobody but us asked."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _note(folder: Path, service: int | None) -> None:
    """Write down, at once and whole, who owns the folder's service."""
    fresh = folder / f"{NOTE}.new"
    fresh.write_text(json.dumps({"owner": _known(os.getpid()), "service": _known(service) if service else None}))
    fresh.replace(folder / NOTE)


def _known(pid: int) -> list[Any]:
    """Name a process so that another one with the same number is not taken for it, nor it for another one.

    Its start is counted from the machine's where that can be read: the clock on the wall may be set meanwhile.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return [pid, f"{boot}/{_ticks(pid)}"]
    except OSError:
        return [pid, _created(pid)]


def _created(pid: int) -> float:
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _ticks(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _lives(known: list[Any]) -> bool:
    """Say whether the process that ``_known`` named so is still there."""
    pid, start = known
    return abs(_created(pid) - start) <= SAME_START if isinstance(start, float) else _known(pid) == known


def sweep() -> None:
    """End the trials whose owners were killed, and remove their folders."""
    for note in Path(PLACE).glob(f"{PREFIX}*/{NOTE}"):
        try:
            if any(path.lstat().st_uid != os.getuid() for path in (note.parent, note)):
                continue
            found = json.loads(note.read_text(encoding="utf-8"))
            owner, service = found["owner"], found["service"]
        except (OSError, ValueError, KeyError):
            continue  # being written, being removed, or not ours
        if _lives(owner):
            continue
        if service is not None and _lives(service):
            try:
                os.killpg(int(service[0]), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        shutil.rmtree(note.parent, ignore_errors=True)
