"""The way to MLflow: its client, imported when it is first needed, and what its errors mean to us.

MLflow is told to be quiet, to send nothing anywhere but to its tracking address, and to give up within seconds: who
waits for a registry decides that by ``TryAgainError``. What the environment says about these settings wins.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, RegistryError, StagewayError, TryAgainError

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_QUICK = {
    # One more try, at once: a server may close a connection that was kept open just when it is used again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_TRANSFER_TIMEOUT = "300"
_LONGEST = 300
EMBEDDED = "artifacts"
"""Where the embedded registry keeps files, below the workspace's state."""
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


class MissingError(RegistryError):
    """What was asked for is not in the registry."""


class _Patience:
    """How long MLflow waits for a reply, and how many transfers need more: one variable of the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transfers = 0
        self._ours = _TIMEOUT not in os.environ  # asked before anybody here sets it

    @contextmanager
    def longer(self) -> Iterator[None]:
        """Wait as long as files take while this is held, unless the environment said how long."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self._transfers += more
            if self._ours:
                os.environ[_TIMEOUT] = _TRANSFER_TIMEOUT if self._transfers else _QUICK[_TIMEOUT]


_patience = _Patience()


class Connection:
    """One workspace's registry address and the client that talks to it."""

    def __init__(self, workspace: Workspace) -> None:
        self.uri = workspace.registry_uri
        self.embedded = workspace.embedded_registry
        self.state = workspace.state
        self.where = "the workspace's registry" if self.embedded else f"registry {workspace.registry_identity}"
        self._opening = threading.Lock()

    @property
    def client(self) -> Any:
        """The client; the first use imports MLflow and, for SQLite, makes the database."""
        with self._opening:
            return self._client

    @cached_property
    def _client(self) -> Any:
        database = _sqlite_file(self.uri)
        if database is not None:
            self._check_readable(database)
        for name, value in (_QUIET | _QUICK).items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # what matters is raised
        # A filter: some versions of MLflow configure Alembic's loggers anew each time.
        logging.getLogger("alembic.runtime.migration").addFilter(lambda record: record.levelno > logging.INFO)
        if database is not None:
            self._make(database)
        elif not self.uri.startswith(("http:", "https:")):
            self._check_reachable()
        client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        client.search_registered_models(max_results=1)
        return client

    def _check_readable(self, database: Path) -> None:
        """Say now what MLflow would try ten times."""
        if database.exists():
            if not os.access(database, os.R_OK):
                raise RegistryError(f"{database}: cannot be read; give this user the right to")
        else:
            database.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(database.parent, os.W_OK):
                raise RegistryError(f"{database.parent}: cannot be written; the registry's database belongs there")

    def _check_reachable(self) -> None:
        """Raise ``TryAgainError`` when nobody listens at a database's address; MLflow would try for a minute."""
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(self.uri)
        except ArgumentError:
            return
        ports = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
        port = url.port or ports.get(url.get_backend_name())
        if url.host and port:
            try:
                socket.create_connection((url.host, port), timeout=5).close()
            except OSError as error:
                raise TryAgainError(f"{self.where} does not answer: {error.strerror or error}") from error

    def _make(self, database: Path) -> None:
        """Make the database whole or not at all: a killed process leaves nothing half made, and two make one."""
        from mlflow import MlflowClient

        with self.locked("registry-database"):
            if database.exists():
                return
            fresh = database.with_name(f".{database.name}-{secrets.token_hex(4)}")
            for old in database.parent.glob(f".{database.name}-*"):
                old.unlink(missing_ok=True)
            try:
                MlflowClient(tracking_uri=f"sqlite:///{fresh}", registry_uri=f"sqlite:///{fresh}").search_experiments()
                if self.embedded:
                    _keep_default_experiment(fresh, self.state / EMBEDDED / "Default")
                fresh.replace(database)
            finally:
                fresh.unlink(missing_ok=True)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock *name* among the processes of this workspace."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def transfers(self) -> Iterator[None]:
        """Give files the time that they need while this is held."""
        with _patience.longer():
            yield

    @contextmanager
    def asking(self) -> Iterator[Any]:
        """Yield the client; what goes wrong with it leaves as one of our errors."""
        try:
            yield self.client
        except StagewayError:
            raise
        except Exception as error:
            ours = self._translated(error)
            if ours is None:
                raise
            raise ours from error

    def _translated(self, error: Exception) -> StagewayError | None:
        for one in _chain(error):
            ours = self._from_network(one) or self._from_sqlite(one) or self._from_disk(one)
            if ours is not None:
                return ours
        return self._from_mlflow(error)

    def _from_network(self, error: BaseException) -> StagewayError | None:
        import requests
        from sqlalchemy.exc import InterfaceError, OperationalError

        if isinstance(error, requests.exceptions.SSLError):
            return RegistryError(f"{self.where} cannot be trusted: {self._sentence(error)}")
        if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)):
            return ConfigError(f"{self.where}: is not an address: {self._sentence(error)}")
        if isinstance(error, requests.HTTPError) and error.response is not None:
            return self._by_status(error.response.status_code, self._sentence(error))
        if isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError)):
            return TryAgainError(f"{self.where} does not answer", detail=self._sentence(error))
        away = isinstance(error, (OperationalError, InterfaceError)) and not isinstance(error.orig, sqlite3.Error)
        return TryAgainError(f"{self.where} does not answer", detail=self._sentence(error)) if away else None

    def _from_sqlite(self, error: BaseException) -> StagewayError | None:
        if not isinstance(error, sqlite3.Error):
            return None
        said, file = str(error), _sqlite_file(self.uri)
        if "locked" in said or "busy" in said:
            return TryAgainError(f"{self.where} is busy: {said}", after=1.0)
        if "readonly" in said:
            return RegistryError(
                f"{self.where} cannot be written: {file} is read-only; "
                "make the workspace writable, or set MLFLOW_TRACKING_URI"
            )
        if "full" in said:
            return RegistryError(
                f"{self.where} cannot be written: the disk of {_sqlite_file(self.uri)} is full; make room"
            )
        return RegistryError(f"{self.where} cannot be used: {file}: {said}")

    def _from_disk(self, error: BaseException) -> StagewayError | None:
        if not isinstance(error, OSError):
            return None
        place = error.filename2 or error.filename or self.state
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RegistryError(f"{place}: cannot be written: the disk is full; make room and try again")
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return RegistryError(f"{place}: cannot be written or read: {error.strerror}")
        return None

    def _from_mlflow(self, error: Exception) -> StagewayError | None:
        from mlflow.exceptions import MlflowException, RestException

        if not isinstance(error, MlflowException):
            return None
        if error.error_code in _MISSING:
            return MissingError(f"{self.where}: {self._sentence(error)}")
        status = error.get_http_status_code()
        if status >= 500 and not isinstance(error, RestException) and "failed with error code" not in str(error):
            status = 400  # MLflow itself said so, not a server: asking again gives the same answer
        return self._by_status(status, self._sentence(error))

    def _by_status(self, status: int, said: str) -> StagewayError:
        if status >= 500 or status == 429:
            return TryAgainError(f"{self.where} cannot answer now ({status})", detail=said)
        return RegistryError(f"{self.where} said no: {said}")

    def _sentence(self, error: BaseException) -> str:
        """The beginning of what was said, without the password of the address."""
        text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        user = self.uri.partition("://")[2].partition("/")[0].rpartition("@")[0]
        return text.replace(f"{user}@", "") if user else text


def _keep_default_experiment(database: Path, folder: Path) -> None:
    """Let MLflow's first experiment keep its files in *folder*, not below whatever folder this process is in."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update experiments set artifact_location = ? where experiment_id = 0", (folder.as_uri(),))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _sqlite_file(uri: str) -> Path | None:
    """Return the database's file when *uri* is one on SQLite."""
    path = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else ""
    return Path(path.partition("?")[0]) if path and path != ":memory:" else None
