"""Evidence: content-addressed facts about releases, the newest of a kind first."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, Table, Text, or_, select

from stageway.evidence import Evidence
from stageway.store.base import Database, metadata

evidence = Table(
    "evidence",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("release", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "number"),
    Index("ix_evidence_release", "workspace", "release", "kind", "number"),
)


class EvidenceOfReleases:
    """What is known about each release. Nothing is forgotten; the newest of a kind counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, *found: Evidence) -> None:
        """Keep *found*; evidence that is the newest of its kind already is not written twice."""
        with self._database.write() as connection:
            for one in found:
                newest = connection.scalar(
                    select(evidence.c.digest)
                    .where(
                        evidence.c.workspace == self._database.workspace,
                        evidence.c.release == (one.release or ""),
                        evidence.c.kind == one.kind,
                        evidence.c.stage == (one.stage or ""),
                    )
                    .order_by(evidence.c.number.desc())
                    .limit(1)
                )
                if newest == one.digest:
                    continue
                connection.execute(
                    evidence.insert().values(
                        workspace=self._database.workspace,
                        number=self._database.next(connection, "evidence"),
                        release=one.release or "",
                        stage=one.stage or "",
                        kind=one.kind,
                        digest=one.digest,
                        body=one.model_dump_json(),
                        at=self._database.now(),
                    )
                )

    def of(self, release_id: str, stage: str | None = None) -> dict[str, Evidence]:
        """Return the newest evidence of each kind.

        With *stage* what was gathered in other stages does not count (what has no stage always does).
        """
        statement = select(evidence.c.body).where(
            evidence.c.workspace == self._database.workspace, evidence.c.release == release_id
        )
        if stage is not None:
            statement = statement.where(or_(evidence.c.stage == "", evidence.c.stage == stage))
        with self._database.read() as connection:
            rows = connection.scalars(statement.order_by(evidence.c.number)).all()
        found = [Evidence.model_validate_json(row) for row in rows]
        return {one.kind: one for one in found}
