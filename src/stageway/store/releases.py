"""Releases: what was packaged, by id."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, Table, Text, select

from stageway.release import ModelVersion, Release
from stageway.store.base import Database, metadata

releases = Table(
    "releases",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace", "id"),
    Index("ix_releases_model", "workspace", "model", "at"),
    Index("ix_releases_at", "workspace", "at"),
)


class Releases:
    """Written once each; a release is its digest, so writing it again changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, release: Release) -> None:
        with self._database.write() as connection:
            values = {
                "workspace": self._database.workspace,
                "id": release.id,
                "model": release.model.key,
                "label": release.label,
                "body": release.model_dump_json(),
                "at": self._database.now(),
            }
            connection.execute(self._database.insert(releases).values(values).on_conflict_do_nothing())

    def get(self, release_id: str) -> Release | None:
        with self._database.read() as connection:
            body = connection.scalar(
                select(releases.c.body).where(
                    releases.c.workspace == self._database.workspace, releases.c.id == release_id
                )
            )
        return None if body is None else Release.model_validate_json(body)

    def of(self, model: ModelVersion) -> list[Release]:
        """Return the releases made of one version, newest first."""
        statement = select(releases.c.body).where(
            releases.c.workspace == self._database.workspace, releases.c.model == model.key
        )
        with self._database.read() as connection:
            rows = connection.scalars(statement.order_by(releases.c.at.desc())).all()
        return [Release.model_validate_json(row) for row in rows]

    def all(self, limit: int = 100) -> list[Release]:
        """Return the newest *limit* releases, newest first."""
        return [release for release, _ in self.made(limit)]

    def made(self, limit: int = 100) -> list[tuple[Release, int]]:
        """Return the newest *limit* releases with the time (ms since 1970) when they were made, newest first."""
        statement = select(releases.c.body, releases.c.at).where(releases.c.workspace == self._database.workspace)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(releases.c.at.desc(), releases.c.id).limit(limit)).all()
        return [(Release.model_validate_json(row.body), row.at) for row in rows]
