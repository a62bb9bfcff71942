"""Runs and their tasks: the rows of the journal. ``pipelines.journal`` says which change may follow which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    TextClause,
    and_,
    case,
    func,
    or_,
    select,
    text,
    update,
)

from stageway.dossier import Dossier
from stageway.facts import Fact
from stageway.release import ModelVersion
from stageway.specs import PipelineSpec
from stageway.store.base import Database, metadata
from stageway.store.workers import Worker

RunState = Literal["queued", "running", "waiting", "ended"]
Outcome = Literal["promoted", "stopped", "failed", "cancelled", "expired", "superseded"]
Where = ColumnElement[bool] | TextClause
TaskState = Literal["queued", "running", "waiting", "done", "refused", "failed", "cancelled"]

AGAIN = "again"
"""What a run that goes is asked for when something changed that it may be about to wait for."""

runs = Table(
    "runs",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("registry", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    Column("reason", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("exit_code", Integer),
    Column("wanted", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("lease_until", BigInteger),
    Column("not_before", BigInteger),
    Column("queued_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    PrimaryKeyConstraint("workspace", "number"),
    # What the engine promises, kept by the database itself: a version has one run at a time …
    Index(
        "uq_runs_going",
        "workspace",
        "pipeline",
        "identity",
        unique=True,
        sqlite_where=text("state <> 'ended'"),
        postgresql_where=text("state <> 'ended'"),
    ),
    # … and runs of one pipeline run one at a time.
    Index(
        "uq_runs_running",
        "workspace",
        "pipeline",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
    # What goes on is found without a look at what has ended.
    Index(
        "ix_runs_going",
        "workspace",
        "number",
        sqlite_where=text("state <> 'ended'"),
        postgresql_where=text("state <> 'ended'"),
    ),
    Index("ix_runs_version", "workspace", "name", "version", "number"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("task", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("dossier", Text),
    Column("error", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    PrimaryKeyConstraint("workspace", "run", "number"),
    ForeignKeyConstraint(["workspace", "run"], ["runs.workspace", "runs.number"], ondelete="CASCADE"),
)


class Run(Fact):
    """One execution of a pipeline for one version. Times in ms since 1970.

    *stage* is where it stopped or waits; *wanted* is what somebody asked for meanwhile, ``cancel: WHY`` or ``again``;
    *exit_code* is the one its command ends with.
    """

    number: int
    pipeline: str
    identity: str
    model: ModelVersion
    cause: str
    origin: Literal["trigger", "person"]
    policy: Literal["latest", "every"]
    state: RunState
    outcome: Outcome | None
    reason: str
    stage: str
    exit_code: int | None
    wanted: str
    worker: Worker | None
    token: int
    lease_until: int | None
    not_before: int | None
    queued_at: int
    started_at: int | None
    ended_at: int | None

    @property
    def label(self) -> str:
        return self.model.label

    @property
    def going(self) -> bool:
        return self.state != "ended"


class TaskRow(Fact):
    """One step of a run. *attempt* counts its starts, *retries* those after ``TryAgainError``; *error* is one line.

    *detail* is what belongs under it: what the task said, or what an error showed.
    """

    number: int
    task: str
    stage: str
    state: TaskState
    attempt: int
    retries: int
    error: str
    detail: str
    started_at: int | None
    ended_at: int | None


# Written out, since a bound parameter would hide from the planner that the partial index fits.
_GOING = text("runs.state <> 'ended'")

_due = func.coalesce(runs.c.not_before, 0)

_MODEL = tuple(ModelVersion.model_fields)
_RUN = tuple(name for name in Run.model_fields if name not in ("model",))
_TASK = tuple(TaskRow.model_fields)


class Runs:
    """Reads and single changes; every method joins the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, spec: PipelineSpec, model: ModelVersion, **values: Any) -> int:
        """Queue a run with a snapshot of the pipeline (without its addresses, which may hold passwords)."""
        with self._database.write() as connection:
            number = self._database.next(connection, "run")
            values = {"reason": "", "stage": "", "wanted": "", "worker": "", "token": 0, "state": "queued"} | values
            connection.execute(
                runs.insert().values(
                    workspace=self._database.workspace,
                    number=number,
                    pipeline=spec.name,
                    spec=spec.model_dump_json(by_alias=True, exclude={"workspace"}),
                    queued_at=self._database.now(),
                    **model.model_dump(),
                    **values,
                )
            )
        return number

    def get(self, number: int) -> Run | None:
        found = self._select([runs.c.number == number], limit=1)
        return found[0] if found else None

    def going(self, pipeline: str | None = None, policy: str | None = None) -> list[Run]:
        """Return the runs that have not ended, oldest first."""
        where: list[Where] = [_GOING, *([] if pipeline is None else [runs.c.pipeline == pipeline])]
        where += [] if policy is None else [runs.c.policy == policy]
        return self._select(where, limit=None, oldest_first=True)

    def going_for(self, pipeline: str, identity: str) -> Run | None:
        """Return the run that is going for one event, if any."""
        where: list[Where] = [_GOING, runs.c.pipeline == pipeline, runs.c.identity == identity]
        found = self._select(where, limit=1)
        return found[0] if found else None

    def of(self, name: str, version: str, limit: int = 20) -> list[Run]:
        """Return the runs for ``name:version``, newest first."""
        return self._select([runs.c.name == name, runs.c.version == version], limit=limit)

    def all(self, limit: int = 20) -> list[Run]:
        """Return the newest *limit* runs, newest first."""
        return self._select([], limit=limit)

    def spec(self, number: int) -> PipelineSpec:
        """Return the pipeline as it was when the run started."""
        with self._database.read() as connection:
            body = connection.scalar(select(runs.c.spec).where(*self._run(number)))
        return PipelineSpec.model_validate_json(str(body))

    def wanted(self, number: int) -> str:
        """Return what somebody asked of a run that goes, such as ``cancel: WHY``; asked before every task."""
        with self._database.read() as connection:
            return str(connection.scalar(select(runs.c.wanted).where(*self._run(number))) or "")

    def change(self, number: int, *where: ColumnElement[bool], **values: Any) -> bool:
        """Change one run if *where* holds; ``False`` when it does not."""
        with self._database.write() as connection:
            return connection.execute(update(runs).where(*self._run(number), *where).values(**values)).rowcount == 1

    def wake(self, number: int, **values: str) -> bool:
        """Queue a run that is queued or waits, with *values*; one that goes is asked to look again.

        One statement, so that no run is missed that begins to wait meanwhile. ``False`` when the run has ended.
        """
        goes = runs.c.state == "running"
        return self.change(
            number,
            runs.c.state != "ended",
            state=case((goes, "running"), else_="queued"),
            wanted=case((and_(goes, runs.c.wanted == ""), AGAIN), else_=runs.c.wanted),
            not_before=None,
            **{name: case((goes, runs.c[name]), else_=value) for name, value in values.items()},
        )

    def claimable(self, number: int | None = None, limit: int = 100) -> list[Run]:
        """Return the running runs and those that are due (or only *number* of these).

        Those that run come first, then those that a person asked for, then the oldest: the limit leaves out the others.
        """
        due = and_(runs.c.state == "queued", _due <= self._database.now())
        if number is not None:
            due = and_(due, runs.c.number == number)
        best = (case((runs.c.state == "running", 0), (runs.c.origin == "person", 1), else_=2), runs.c.number)
        return self._select([_GOING, or_(runs.c.state == "running", due)], limit, order=best)

    def begun(self) -> list[Run]:
        """Return the queued runs that a worker had before, oldest first."""
        return self._select([_GOING, runs.c.state == "queued", runs.c.started_at.is_not(None)], None, oldest_first=True)

    def lock(self, number: int) -> RunState | None:
        """Return the run's state, and let nobody else change the run until the caller's transaction ends."""
        with self._database.write() as connection:
            found: RunState | None = connection.scalar(
                select(runs.c.state).where(*self._run(number)).with_for_update(key_share=True)
            )
        return found

    def first_going(self, pipeline: str) -> int | None:
        """Return the oldest run of *pipeline* that has not ended."""
        with self._database.read() as connection:
            where: list[Where] = [runs.c.workspace == self._database.workspace, _GOING, runs.c.pipeline == pipeline]
            found = connection.scalar(select(func.min(runs.c.number)).where(*where))
        return None if found is None else int(found)

    def add_task(self, run: int, number: int, task: str, stage: str, **values: Any) -> None:
        """Add a task; one that is there already (a commit whose answer was lost) stays as it is."""
        start = {"state": "queued", "attempt": 0, "retries": 0, "error": "", "detail": ""} | values
        with self._database.write() as connection:
            statement = self._database.insert(tasks).values(
                workspace=self._database.workspace, run=run, number=number, task=task, stage=stage, **start
            )
            connection.execute(statement.on_conflict_do_nothing())

    def change_task(self, run: int, number: int, *where: ColumnElement[bool], **values: Any) -> bool:
        """Change one task if *where* holds; ``False`` when it does not."""
        key = [tasks.c.workspace == self._database.workspace, tasks.c.run == run, tasks.c.number == number]
        with self._database.write() as connection:
            return connection.execute(update(tasks).where(*key, *where).values(**values)).rowcount == 1

    def tasks(self, run: int) -> list[TaskRow]:
        """Return the run's tasks in order."""
        columns = [tasks.c[name] for name in _TASK]
        statement = select(*columns).where(tasks.c.workspace == self._database.workspace, tasks.c.run == run)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(tasks.c.number)).mappings().all()
        return [TaskRow.model_validate(dict(row)) for row in rows]

    def dossier(self, run: int) -> Dossier:
        """Return what the run's tasks found so far."""
        statement = select(tasks.c.dossier).where(
            tasks.c.workspace == self._database.workspace, tasks.c.run == run, tasks.c.dossier.is_not(None)
        )
        with self._database.read() as connection:
            body = connection.scalar(statement.order_by(tasks.c.number.desc()).limit(1))
        return Dossier() if body is None else Dossier.from_json(body, f"run {run}")

    def _run(self, number: int) -> list[ColumnElement[bool]]:
        return [runs.c.workspace == self._database.workspace, runs.c.number == number]

    def _select(
        self,
        where: Sequence[Where],
        limit: int | None,
        oldest_first: bool = False,
        order: Sequence[ColumnElement[Any]] = (),
    ) -> list[Run]:
        order = order or (runs.c.number.asc() if oldest_first else runs.c.number.desc(),)
        columns = [runs.c[name] for name in (*_RUN, *_MODEL)]
        statement = select(*columns).where(runs.c.workspace == self._database.workspace, *where)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(*order).limit(limit)).mappings().all()
        return [_run(row) for row in rows]


def _run(row: Mapping[Any, Any]) -> Run:
    values = {name: row[name] for name in _RUN}
    values["worker"] = Worker.model_validate_json(row["worker"]) if row["worker"] else None
    return Run(model=ModelVersion.model_validate({name: row[name] for name in _MODEL}), **values)
