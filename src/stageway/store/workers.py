"""Workers: which processes take runs, so that a command knows whether anybody will."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, Table, Text, and_, delete, select

from stageway.facts import Fact
from stageway.store.base import Database, metadata

workers = Table(
    "workers",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("start", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "place", "pid"),
)


class Worker(Fact):
    """One process. *place* is one machine's one boot (and container); with it *pid* and *start* name the process."""

    place: str
    host: str
    pid: int
    start: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class Presence(Fact):
    """A worker, *since* when, and when it last said so. Times in ms since 1970."""

    worker: Worker
    since: int
    beat_at: int


GONE_MS = 24 * 60 * 60 * 1000
"""After so long without a word a worker is forgotten: it was killed, or its machine is gone."""


class Workers:
    """One row a process, kept while it takes runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, worker: Worker) -> None:
        """Say that *worker* lives, and forget those that have not said so for a day."""
        now = self._database.now()
        with self._database.write() as connection:
            mine = workers.c.workspace == self._database.workspace
            connection.execute(delete(workers).where(and_(mine, workers.c.beat_at < now - GONE_MS)))
            statement = self._database.insert(workers).values(
                workspace=self._database.workspace, since=now, beat_at=now, **worker.model_dump()
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["workspace", "place", "pid"],
                    set_={"beat_at": now, "start": worker.start, "host": worker.host},
                )
            )

    def remove(self, worker: Worker) -> None:
        """Say that *worker* takes no more runs."""
        with self._database.write() as connection:
            connection.execute(
                delete(workers).where(
                    and_(
                        workers.c.workspace == self._database.workspace,
                        workers.c.place == worker.place,
                        workers.c.pid == worker.pid,
                    )
                )
            )

    def all(self) -> list[Presence]:
        """Return the workers that said they live and did not say good-bye, the newest word first."""
        statement = select(workers).where(workers.c.workspace == self._database.workspace)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(workers.c.beat_at.desc())).mappings().all()
        return [
            Presence(
                worker=Worker.model_validate({name: row[name] for name in Worker.model_fields}),
                since=row["since"],
                beat_at=row["beat_at"],
            )
            for row in rows
        ]
