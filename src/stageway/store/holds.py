"""Holds: stages that nothing is promoted to until a person resumes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Table, Text, delete, select

from stageway.facts import Fact
from stageway.store.base import Database, metadata

holds = Table(
    "holds",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "stage"),
)


class Hold(Fact):
    """Why a stage is held, by whom, *since* ms since 1970."""

    stage: str
    reason: str
    by: str
    since: int


class Holds:
    """At most one hold a stage; the newest word replaces the one before."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, stage: str, reason: str, by: str) -> None:
        said = {"reason": reason, "by": by, "since": self._database.now()}
        with self._database.write() as connection:
            connection.execute(
                self._database.insert(holds)
                .values(workspace=self._database.workspace, stage=stage, **said)
                .on_conflict_do_update(index_elements=["workspace", "stage"], set_=said)
            )

    def clear(self, stage: str) -> None:
        """Let the stage go on; one that is not held is no error."""
        with self._database.write() as connection:
            connection.execute(
                delete(holds).where(holds.c.workspace == self._database.workspace, holds.c.stage == stage)
            )

    def get(self, stage: str) -> Hold | None:
        statement = select(holds).where(holds.c.workspace == self._database.workspace, holds.c.stage == stage)
        with self._database.read() as connection:
            row = connection.execute(statement).mappings().first()
        return None if row is None else Hold.model_validate({name: row[name] for name in Hold.model_fields})
