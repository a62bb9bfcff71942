"""Bring a database to this version's schema: one query when it is current, alembic only when it is not.

Any number of processes may do so at once: one migrates, the others find it done. A process that is killed meanwhile
leaves the database as it was.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from stageway.errors import StoreError
from stageway.store.base import SCHEMA, Database, translated

HEAD = "0002"
"""The newest migration; a test compares it with the files in ``migrations/versions``."""

MIGRATIONS = Path(__file__).parent / "migrations"


def ensure(database: Database) -> None:
    """Make the schema current. Raises ``StoreError`` when the database is from a newer Stageway."""
    if _version(database) != HEAD:
        _migrate(database)
    database.set_clock()


def _version(database: Database) -> str | None:
    """Return the schema's version, or ``None`` before the first migration."""
    try:
        with database.engine.connect().execution_options(stageway_write=False) as connection:
            return _read_version(connection, database)
    except DBAPIError as error:
        raise translated(error, database.where) or error from error


def _read_version(connection: Connection, database: Database) -> str | None:
    there = (
        "select 1 from information_schema.tables where table_schema = :schema and table_name = 'alembic_version'"
        if database.postgresql
        else "select 1 from sqlite_master where type = 'table' and name = 'alembic_version'"
    )
    arguments = {"schema": SCHEMA} if database.postgresql else {}
    if connection.scalar(text(there), arguments) is None:
        return None
    found = connection.scalar(text("select version_num from alembic_version"))
    return None if found is None else str(found)


def _migrate(database: Database) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    try:
        with (
            _alone(database),
            database.engine.connect().execution_options(stageway_write=True) as connection,
            connection.begin(),
        ):
            if database.postgresql:
                connection.execute(text("select pg_advisory_xact_lock(hashtext('stageway schema'))"))
                connection.execute(text(f"create schema if not exists {SCHEMA}"))
            version = _read_version(connection, database)
            if version is not None and version not in known:
                raise StoreError(
                    f"{database.where}: is from a newer Stageway (its schema is {version!r}, this one knows "
                    f"{HEAD!r}); run `pip install --upgrade stageway`"
                )
            if version != HEAD:
                config.attributes["connection"] = connection
                command.upgrade(config, HEAD)
    except DBAPIError as error:
        raise translated(error, database.where) or error from error


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Keep other processes of this machine from an SQLite file that is being made; put it into WAL mode."""
    if database.postgresql or database.where.startswith("file:"):
        yield
        return
    path = Path(database.where + ".lock")
    try:
        file = path.open("w")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        raw = database.engine.raw_connection()
        try:
            raw.execute("PRAGMA journal_mode=WAL")
        finally:
            raw.close()
        yield
