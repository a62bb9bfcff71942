"""The store of one workspace: every noun on one database."""

from __future__ import annotations

from types import TracebackType

from stageway.config.workspace import Workspace
from stageway.store.base import Database, connect
from stageway.store.decisions import Decisions
from stageway.store.evidence import EvidenceOfReleases
from stageway.store.holds import Holds
from stageway.store.ledger import Ledger
from stageway.store.marks import Marks
from stageway.store.releases import Releases
from stageway.store.runs import Runs
from stageway.store.stages import Stages
from stageway.store.workers import Workers


class Store:
    """What the workspace remembers. Made by ``store.open(workspace)``; safe to share among threads."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.workspace = database.workspace
        self.read = database.read
        self.write = database.write
        self.now = database.now
        self.releases = Releases(database)
        self.evidence = EvidenceOfReleases(database)
        self.stages = Stages(database)
        self.decisions = Decisions(database)
        self.holds = Holds(database)
        self.ledger = Ledger(database)
        self.runs = Runs(database)
        self.marks = Marks(database)
        self.workers = Workers(database)

    @classmethod
    def open(cls, workspace: Workspace) -> Store:
        from stageway.store import schema

        database = connect(workspace.database_url, workspace.root, workspace.id)
        try:
            schema.ensure(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
