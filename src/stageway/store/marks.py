"""Marks: how far each trigger of a pipeline was read, and whether its source is away."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Table, Text, select

from stageway.facts import Fact
from stageway.store.base import Database, metadata

marks = Table(
    "marks",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("read_at", BigInteger, nullable=False),
    Column("problem", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "pipeline", "trigger"),
)


class Mark(Fact):
    """Events up to *since* are in the ledger; *problem* says why the last pass failed. Times in ms since 1970."""

    pipeline: str
    trigger: str
    since: int
    read_at: int
    problem: str = ""


class Marks:
    """One mark a trigger; absent before its first pass."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, mark: Mark) -> None:
        said = mark.model_dump(include={"since", "read_at", "problem"})
        with self._database.write() as connection:
            connection.execute(
                self._database.insert(marks)
                .values(workspace=self._database.workspace, **mark.model_dump())
                .on_conflict_do_update(index_elements=["workspace", "pipeline", "trigger"], set_=said)
            )

    def get(self, pipeline: str, trigger: str) -> Mark | None:
        found = [mark for mark in self.all(pipeline) if mark.trigger == trigger]
        return found[0] if found else None

    def all(self, pipeline: str) -> list[Mark]:
        statement = select(marks).where(marks.c.workspace == self._database.workspace, marks.c.pipeline == pipeline)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(marks.c.trigger)).mappings().all()
        return [Mark.model_validate({name: row[name] for name in Mark.model_fields}) for row in rows]
