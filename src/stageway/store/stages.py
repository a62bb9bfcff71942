"""Stages: the history of what each one held, and which releases proved good or bad there."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import BigInteger, Column, ColumnElement, Index, PrimaryKeyConstraint, Row, Table, Text, and_, select

from stageway.facts import Fact
from stageway.release import Release
from stageway.store.base import Database, metadata
from stageway.store.releases import Releases, releases

How = Literal["deployed", "promoted", "rolled-back"]

history = Table(
    "stage_history",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("how", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "number"),
    Index("ix_stage_history_stage", "workspace", "stage", "number"),
    Index("ix_stage_history_release", "workspace", "release", "number"),
)

proofs = Table(
    "stage_proofs",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "stage", "release"),
)


class StageRow(Fact):
    """One line of a stage's history. *verdict* is what the stage learned of it: proven, rejected or nothing."""

    stage: str
    release: str
    label: str
    service: str
    target: str
    endpoint: str
    how: How
    at: int
    verdict: Literal["proven", "rejected"] | None = None
    why: str = ""


class Stages:
    """What each stage holds and held."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, stage: str, release: Release, service: str, target: str, endpoint: str, how: How, at: int) -> None:
        """Write that *stage* holds *release* now. Said again (a task that is repeated), it is one row."""
        with self._database.write() as connection:
            newest = self.current(stage)
            same = (release.id, service, target, endpoint)
            if newest is not None and (newest.release, newest.service, newest.target, newest.endpoint) == same:
                return
            Releases(self._database).put(release)
            connection.execute(
                history.insert().values(
                    workspace=self._database.workspace,
                    number=self._database.next(connection, "stage"),
                    stage=stage,
                    release=release.id,
                    label=release.label,
                    service=service,
                    target=target,
                    endpoint=endpoint,
                    how=how,
                    at=at,
                )
            )

    def current(self, stage: str) -> StageRow | None:
        """Return what *stage* holds, or ``None`` when nothing was ever placed there."""
        rows = self.history(stage, 1)
        return rows[0] if rows else None

    def history(self, stage: str, limit: int = 100) -> list[StageRow]:
        """Return what *stage* held, newest first."""
        return self._select(history.c.stage == stage, limit=limit)

    def _select(self, where: ColumnElement[bool], limit: int | None) -> list[StageRow]:
        joined = history.outerjoin(
            proofs,
            and_(
                proofs.c.workspace == history.c.workspace,
                proofs.c.stage == history.c.stage,
                proofs.c.release == history.c.release,
            ),
        )
        statement = (
            select(history, proofs.c.verdict, proofs.c.why)
            .select_from(joined)
            .where(history.c.workspace == self._database.workspace, where)
            .order_by(history.c.number.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(statement)]

    def of(self, release_id: str) -> list[StageRow]:
        """Return where one release has been, newest first."""
        return self._select(history.c.release == release_id, limit=None)

    def proven(self, stage: str, release_id: str) -> None:
        """Write that the release did its work in *stage*: it may be rolled back to."""
        self._judge(stage, release_id, "proven", "")

    def rejected(self, stage: str, release_id: str, why: str) -> None:
        """Write that the release is bad in *stage*: it is never rolled back to."""
        self._judge(stage, release_id, "rejected", why)

    def last_good(self, stage: str, not_release: str | None = None) -> Release | None:
        """Return the newest release that proved good in *stage* and was not rejected there since."""
        joined = history.join(
            proofs,
            and_(
                proofs.c.workspace == history.c.workspace,
                proofs.c.stage == history.c.stage,
                proofs.c.release == history.c.release,
            ),
        ).join(releases, and_(releases.c.workspace == history.c.workspace, releases.c.id == history.c.release))
        statement = (
            select(releases.c.body)
            .select_from(joined)
            .where(
                history.c.workspace == self._database.workspace,
                history.c.stage == stage,
                history.c.release != (not_release or ""),
                proofs.c.verdict == "proven",
            )
            .order_by(history.c.number.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            body = connection.scalar(statement)
        return None if body is None else Release.model_validate_json(body)

    def _judge(self, stage: str, release_id: str, verdict: str, why: str) -> None:
        said = {"verdict": verdict, "why": why, "at": self._database.now()}
        with self._database.write() as connection:
            connection.execute(
                self._database.insert(proofs)
                .values(workspace=self._database.workspace, stage=stage, release=release_id, **said)
                .on_conflict_do_update(index_elements=["workspace", "stage", "release"], set_=said)
            )


def _row(row: Row[tuple[object, ...]]) -> StageRow:
    values = dict(row._mapping)
    del values["workspace"], values["number"]
    values["why"] = values["why"] or ""
    return StageRow.model_validate(values)
