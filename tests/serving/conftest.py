"""Real servers for the tests, with the serving layer alone on their path, and a client that keeps its connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import stageway

PATIENCE = 60.0


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client(http.client.HTTPConnection):
    """One connection to a Unix socket or a port, kept open between requests."""

    def __init__(self, address: Path | int) -> None:
        super().__init__("127.0.0.1", address if isinstance(address, int) else None, timeout=PATIENCE)
        self._address = address

    def connect(self) -> None:
        if isinstance(self._address, int):
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(str(self._address))

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        self.request(method, path, body=body, headers=headers or {})
        answer = self.getresponse()
        return Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())


@dataclass
class Service:
    """One server process, started with *arguments* in *folder*."""

    folder: Path
    layer: Path
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("-m", "stageway.serving")

    def __post_init__(self) -> None:
        # A Unix socket's path is short; pytest's folders are not.
        self.place = Path(tempfile.mkdtemp(prefix="sw"))
        self.uds = self.place / "s"
        self.log = self.place / "log"
        where = [] if "--port" in self.arguments else ["--uds", str(self.uds)]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.layer),
            "PYTHONDONTWRITEBYTECODE": "1",
            "STAGEWAY_SITE": sysconfig.get_path("purelib"),
            **self.environment,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [base_python(), "-S", "-s", "-P", *self.command, *where, *self.arguments],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def ready(self) -> Service:
        until(lambda: self.process.poll() is not None or any("ready on " in line for line in self.lines))
        assert self.process.poll() is None, "\n".join(self.lines)
        return self

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    @property
    def port(self) -> int:
        line = next(line for line in self.lines if " ready on " in line)
        return int(line.partition("http://127.0.0.1:")[2].partition(",")[0])

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with contextlib.closing(Client(self.port if "--port" in self.arguments else self.uds)) as client:
            yield client

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        with self.client() as client:
            return client.ask(method, path, body, headers)

    def score(self, value: Any, headers: dict[str, str] | None = None) -> Reply:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", "/score", body, {"content-type": "application/json", **(headers or {})})

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        shutil.rmtree(self.place)


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], Any]], None]:
    return until


def until(true: Callable[[], Any]) -> None:
    """Wait until *true* says so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def base_python() -> str:
    """Return the interpreter below the virtual environment, as a bundle uses it."""
    return str(getattr(sys, "_base_executable", sys.executable))


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The serving layer: what it may import of Stageway, and nothing else of it."""
    source = Path(stageway.__file__).parent
    folder = tmp_path_factory.mktemp("layer") / "stageway"
    folder.mkdir()
    for name in ("__init__.py", "errors.py", "contract.py"):
        shutil.copy(source / name, folder)
    shutil.copytree(source / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    return folder.parent


Start = Callable[..., Service]


@pytest.fixture(scope="module")
def start(layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start services; ``start(script, *arguments)`` writes the script first. All end with the module."""
    services: list[Service] = []

    def begin(
        script: str | None, *arguments: str, folder: Path | None = None, environment: dict[str, str] | None = None
    ) -> Service:
        folder = folder or tmp_path_factory.mktemp("app")
        given = list(arguments)
        if script is not None:
            (folder / "score.py").write_text(script)
            given += ["--entry-script", "score.py"]
        services.append(Service(folder, layer, given, environment or {}))
        return services[-1]

    yield begin
    for service in services:
        service.end()


@pytest.fixture
def frugal() -> Any:
    """Fail what takes more than 64 MB at once, while it lasts."""

    @contextlib.contextmanager
    def watched() -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        finally:
            tracemalloc.stop()

    return watched
