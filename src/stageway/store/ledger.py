"""The ledger: every version that a trigger saw, once each, and how it ended."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import BigInteger, Column, ColumnElement, Index, PrimaryKeyConstraint, Table, Text, select, update

from stageway.events import Event
from stageway.facts import Fact
from stageway.release import ModelVersion
from stageway.store.base import Database, metadata

Ended = Literal["promoted", "stopped", "failed", "cancelled", "expired", "superseded", "skipped"]

ledger = Table(
    "ledger",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("registry", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("run", BigInteger),
    Column("ended", Text),
    Column("reason", Text, nullable=False),
    Column("ended_at", BigInteger),
    PrimaryKeyConstraint("workspace", "pipeline", "identity"),
    Index("ix_ledger_seen", "workspace", "seen_at"),
    Index("ix_ledger_version", "workspace", "name", "version"),
)


class LedgerRow(Fact):
    """One thing that happened to one version, and how it ended (``None``: its run is going). Times in ms since 1970."""

    pipeline: str
    identity: str
    model: ModelVersion
    cause: str
    at: int
    seen_at: int
    run: int | None = None
    ended: Ended | None = None
    reason: str = ""
    ended_at: int | None = None


class Ledger:
    """One row for each (pipeline, event): the unique key that makes a version start once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def see(self, pipeline: str, event: Event) -> bool:
        """Write *event* down; ``False`` when the ledger has it already."""
        with self._database.write() as connection:
            statement = self._database.insert(ledger).values(
                workspace=self._database.workspace,
                pipeline=pipeline,
                identity=event.identity,
                cause=event.cause,
                at=event.at,
                seen_at=self._database.now(),
                reason="",
                **event.model.model_dump(),
            )
            written = statement.on_conflict_do_nothing().returning(ledger.c.identity)
            return connection.execute(written).first() is not None

    def lock(self, pipeline: str, identity: str) -> LedgerRow | None:
        """Return the row, and keep other processes from changing it until the caller's transaction ends."""
        with self._database.write() as connection:
            connection.execute(select(ledger.c.identity).where(*self._row(pipeline, identity)).with_for_update())
            return self.get(pipeline, identity)

    def started(self, pipeline: str, identity: str, run: int) -> None:
        """Write which run goes for it; a version that is run again is not ended any more."""
        self._change(pipeline, identity, run=run, ended=None, reason="", ended_at=None)

    def end(self, pipeline: str, identity: str, ended: Ended, reason: str) -> None:
        """Write how it ended, and why."""
        self._change(pipeline, identity, ended=ended, reason=reason, ended_at=self._database.now())

    def get(self, pipeline: str, identity: str) -> LedgerRow | None:
        found = self._select(ledger.c.pipeline == pipeline, ledger.c.identity == identity, limit=1)
        return found[0] if found else None

    def of(self, name: str, version: str) -> list[LedgerRow]:
        """Return what was seen of ``name:version``, newest first."""
        return self._select(ledger.c.name == name, ledger.c.version == version, limit=100)

    def known(self, pipeline: str, identities: list[str]) -> set[str]:
        """Return those of *identities* that the ledger has."""
        found: set[str] = set()
        with self._database.read() as connection:
            for at in range(0, len(identities), 500):
                statement = select(ledger.c.identity).where(
                    ledger.c.workspace == self._database.workspace,
                    ledger.c.pipeline == pipeline,
                    ledger.c.identity.in_(identities[at : at + 500]),
                )
                found.update(connection.scalars(statement))
        return found

    def all(self, limit: int = 100, pipeline: str | None = None) -> list[LedgerRow]:
        """Return the rows seen last, newest first."""
        return self._select(*([] if pipeline is None else [ledger.c.pipeline == pipeline]), limit=limit)

    def _change(self, pipeline: str, identity: str, **values: object) -> None:
        with self._database.write() as connection:
            connection.execute(update(ledger).where(*self._row(pipeline, identity)).values(**values))

    def _row(self, pipeline: str, identity: str) -> list[ColumnElement[bool]]:
        return [
            ledger.c.workspace == self._database.workspace,
            ledger.c.pipeline == pipeline,
            ledger.c.identity == identity,
        ]

    def _select(self, *where: ColumnElement[bool], limit: int) -> list[LedgerRow]:
        statement = select(ledger).where(ledger.c.workspace == self._database.workspace, *where)
        statement = statement.order_by(ledger.c.seen_at.desc(), ledger.c.created.desc()).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(statement).mappings().all()
        return [
            LedgerRow(
                model=ModelVersion.model_validate({name: row[name] for name in ModelVersion.model_fields}),
                **{name: row[name] for name in LedgerRow.model_fields if name != "model"},
            )
            for row in rows
        ]
