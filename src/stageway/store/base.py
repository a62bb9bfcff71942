"""One engine, one MetaData, and the transactions that every noun uses. SQLite in WAL mode or PostgreSQL.

``write()`` and ``read()`` join the transaction that this thread is in already, so that nouns can be combined into one
transaction: ``with store.write(): store.ledger…; store.runs…``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from stageway.errors import StagewayError, StoreError, TryAgainError
from stageway.facts import Fact

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql.dml import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite.dml import Insert as SqliteInsert

SCHEMA = "stageway"
"""The schema in PostgreSQL, named once; SQLite has a file of its own."""

BUSY_SECONDS = 15.0
"""How long a write waits for another process's write before it gives up with ``TryAgainError``."""

Conflict = IntegrityError
"""Two processes wrote what only one may; where that is expected, the caller looks again."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

counters = Table(
    "counters",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("noun", Text, nullable=False),
    Column("value", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "noun"),
)


class Lease(Fact):
    """The right to write for one run. *token* grows with every claim: who holds an older one is refused."""

    workspace: str
    run: int
    token: int


class LeaseLostError(StagewayError):
    """Another worker took the run over; nothing of this worker is stored any more."""

    exit_code = 3


_lease: ContextVar[Lease | None] = ContextVar("lease", default=None)


@contextmanager
def under(lease: Lease) -> Iterator[None]:
    """Let every write of this context carry *lease*: also those that a task makes with a store of its own."""
    token = _lease.set(lease)
    try:
        yield
    finally:
        _lease.reset(token)


class Database:
    """An engine for one workspace's rows. Nouns are made with it; tests and benches may use it alone."""

    def __init__(self, engine: Engine, workspace: str, where: str) -> None:
        self.engine = engine
        self.workspace = workspace
        self.where = where
        self.postgresql = engine.dialect.name == "postgresql"
        self._open = threading.local()
        self._ahead = 0.0

    def now(self) -> int:
        """Return ms since 1970 by the one clock of this database: the server's, else this machine's."""
        return int((time.time() + self._ahead) * 1000)

    def set_clock(self) -> None:
        """Learn how far the database server's clock is ahead of ours, so that all its workers share one clock."""
        if self.postgresql:
            with self.read() as connection:
                theirs = connection.scalar(text("select extract(epoch from clock_timestamp())"))
                self._ahead = float(str(theirs)) - time.time()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection whose reads see one moment."""
        with self._transaction(write=False) as connection:
            yield connection

    @contextmanager
    def write(self, lease: Lease | None = None) -> Iterator[Connection]:
        """Give a connection whose writes happen all or not at all, durably.

        With a lease (given, or of this context) the writes are refused when another worker has taken the run over.
        """
        with self._transaction(write=True, lease=lease or _lease.get()) as connection:
            yield connection

    def insert(self, table: Table) -> SqliteInsert | PostgresInsert:
        """Return an insert of this dialect, which knows ``on_conflict_do_nothing`` and ``…_do_update``."""
        return postgresql.insert(table) if self.postgresql else sqlite.insert(table)

    def next(self, connection: Connection, noun: str) -> int:
        """Return the next number of *noun* in this workspace: 1, 2, 3 …"""
        statement = self.insert(counters).values(workspace=self.workspace, noun=noun, value=1)
        statement = statement.on_conflict_do_update(
            index_elements=["workspace", "noun"], set_={"value": counters.c.value + 1}
        )
        return int(connection.execute(statement.returning(counters.c.value)).scalar_one())

    def close(self) -> None:
        self.engine.dispose()

    def _check(self, connection: Connection, held: Lease) -> None:
        runs = metadata.tables["runs"]
        statement = (
            select(runs.c.token)
            .where(runs.c.workspace == held.workspace, runs.c.number == held.run, runs.c.state == "running")
            # As strong as the update that follows: two who share the row before they change it wait for each other.
            .with_for_update(key_share=True)
        )
        if connection.scalar(statement) != held.token:
            raise LeaseLostError(f"run {held.run} was taken over by another worker; this one stops")

    @contextmanager
    def _transaction(self, write: bool, lease: Lease | None = None) -> Iterator[Connection]:
        joined: Connection | None = getattr(self._open, "connection", None)
        if joined is not None:
            if write and not self._open.write:
                raise RuntimeError("a write was asked for inside a read")
            yield joined
            return
        try:
            with self.engine.connect().execution_options(stageway_write=write) as connection, connection.begin():
                self._open.connection, self._open.write = connection, write
                try:
                    if lease is not None and lease.workspace == self.workspace:
                        self._check(connection, lease)
                    yield connection
                finally:
                    self._open.connection = None
        except DBAPIError as error:
            said = translated(error, self.where)
            if said is None:
                raise
            raise said from error


def connect(address: str, root: Path, workspace: str) -> Database:
    """Return the database at *address* (an SQLAlchemy URL; relative SQLite files are relative to *root*)."""
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise StoreError(
            f"workspace.database: {_hidden(address)!r} is not a database address; write "
            "sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _sqlite(url, root, workspace)
    if kind in ("postgresql", "postgres"):
        return _postgresql(url, workspace)
    raise StoreError(f"workspace.database: {kind!r} is not supported; write sqlite:///FILE or postgresql://…")


def _sqlite(url: URL, root: Path, workspace: str) -> Database:
    if url.database in (None, "", ":memory:"):
        raise StoreError("workspace.database: a database in memory keeps nothing; write sqlite:///FILE")
    where = str(url.database)
    if not where.startswith("file:"):
        where = str(root / where)
        url = url.set(database=where)
        try:
            Path(where).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{where}: its folder cannot be made: {(error.strerror or str(error)).lower()}") from error
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_reset_on_return=None)

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, entry: ConnectionPoolEntry) -> None:
        raw.isolation_level = None  # transactions are begun below, not guessed by the driver
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("stageway_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return Database(engine, workspace, where)


def _postgresql(url: URL, workspace: str) -> Database:
    where = f"database {url.database or ''} at {url.host or 'the local socket'}"
    options = " ".join(filter(None, [str(url.query.get("options", "")), f"-csearch_path={SCHEMA}"]))
    url = url.set(drivername="postgresql+psycopg").difference_update_query(["options"])
    connect_args = {"options": options, "connect_timeout": 10, "application_name": "stageway"}
    try:
        engine = create_engine(url, connect_args=connect_args, pool_pre_ping=True)
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            "workspace.database: PostgreSQL needs one more package; run `pip install 'stageway[postgresql]'`"
        ) from error
    return Database(engine, workspace, where)


def _hidden(address: str) -> str:
    before, at, after = address.rpartition("@")
    return f"{before.partition('://')[0]}://***@{after}" if at else address


def translated(error: DBAPIError, where: str) -> StagewayError | None:
    """Say a driver's error as ours; ``None`` for what is our bug (a wrong statement, a broken rule)."""
    said = str(error.orig).strip().splitlines()[0] if error.orig is not None and str(error.orig).strip() else str(error)
    for signs, make, sentence in _SAYINGS:
        if any(sign in said for sign in signs):
            return make(f"{where}: {sentence}")
    state = getattr(error.orig, "sqlstate", None)
    if state is None and type(error).__name__ == "OperationalError" and "psycopg" in type(error.orig).__module__:
        return TryAgainError(f"{where}: does not answer: {said}", after=10)
    if state is not None:
        for start, make, sentence in _STATES:
            if state.startswith(start):
                return make(f"{where}: {sentence}")
    return None


_SAYINGS: tuple[tuple[tuple[str, ...], type[StoreError] | type[TryAgainError], str], ...] = (
    (("database is locked", "database table is locked"), TryAgainError, "is locked by another process; try again"),
    (("readonly database",), StoreError, "cannot be written: it is read-only; make the file and its folder writable"),
    (("disk is full",), StoreError, "cannot be written: the disk is full; make room and run the command again"),
    (("unable to open database",), StoreError, "cannot be opened; its folder must exist and be writable"),
    (("not a database", "malformed"), StoreError, "is damaged; restore it from a copy, or move it away to start anew"),
    (("disk I/O error",), StoreError, "the disk answers with an error; check the disk and its free space"),
    (("password authentication failed", "no password supplied"), StoreError, "refuses the user or the password"),
    (("does not exist",), StoreError, "the database or the user does not exist; create it first"),
)
_STATES: tuple[tuple[str, type[StoreError] | type[TryAgainError], str], ...] = (
    ("53100", StoreError, "cannot be written: its disk is full; make room and run the command again"),
    ("25006", StoreError, "cannot be written: it is read-only; connect to the primary server"),
    ("42501", StoreError, "the user may not use schema 'stageway'; grant it, or let the owner run a command first"),
    ("40", TryAgainError, "was busy with the same rows; try again"),
    ("55P03", TryAgainError, "is locked by another process; try again"),
    ("53", TryAgainError, "has no room for another connection; try again"),
    ("57", TryAgainError, "is restarting; try again"),
    ("08", TryAgainError, "the connection broke; try again"),
)
