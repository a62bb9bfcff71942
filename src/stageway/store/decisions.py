"""Decisions: who approved or rejected which release for which stage."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import BigInteger, Boolean, Column, Index, PrimaryKeyConstraint, Table, Text, select

from stageway.facts import Fact
from stageway.store.base import Database, metadata

decisions = Table(
    "decisions",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("attested", Boolean, nullable=False),
    Column("evidence", Text, nullable=False),
    PrimaryKeyConstraint("workspace", "number"),
    Index("ix_decisions_release", "workspace", "stage", "release", "number"),
)


class Decision(Fact):
    """One person's word. *model* is the version's label, *evidence* the digest of what was seen, *at* ms since 1970."""

    stage: str
    release: str
    model: str
    decision: Literal["approve", "reject"]
    by: str
    note: str = ""
    at: int
    attested: bool = False
    evidence: str = ""


class Decisions:
    """Appended, never changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, decision: Decision) -> None:
        with self._database.write() as connection:
            connection.execute(
                decisions.insert().values(
                    workspace=self._database.workspace,
                    number=self._database.next(connection, "decision"),
                    **decision.model_dump(),
                )
            )

    def of(self, stage: str, release_id: str) -> list[Decision]:
        """Return the decisions on one release for one stage, oldest first."""
        statement = select(decisions).where(
            decisions.c.workspace == self._database.workspace,
            decisions.c.stage == stage,
            decisions.c.release == release_id,
        )
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(decisions.c.number)).mappings().all()
        return [Decision.model_validate({name: row[name] for name in Decision.model_fields}) for row in rows]
