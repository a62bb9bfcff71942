"""What each stage holds, what goes on, and where releases have been: the tables of ``status`` and ``releases``."""

from __future__ import annotations

from stageway.config.workspace import Workspace
from stageway.errors import StagewayError
from stageway.facts import Fact
from stageway.pipelines.ledger import at_work
from stageway.pipelines.process import alive
from stageway.pipelines.words import clock
from stageway.store import Store
from stageway.store.ledger import LedgerRow
from stageway.store.marks import Mark
from stageway.store.runs import Run
from stageway.store.stages import StageRow
from stageway.store.workers import Presence
from stageway.targets.base import Observed, Revision
from stageway.tasks.base import open_target, service_name


class BoardRow(Fact):
    """One stage as its target reports it; what the history says where the target reports nothing.

    *health* is the target's word, ``empty`` for a stage that never held anything, ``away`` when nobody answers.
    *problem* says what does not agree, and the way out. *since* is in ms since 1970.
    """

    stage: str
    target: str
    label: str | None = None
    release: str | None = None
    since: int | None = None
    endpoint: str | None = None
    health: str = "empty"
    waiting: tuple[str, ...] = ()
    problem: str = ""


class Status(Fact):
    """The board, the runs that have not ended, what was seen last, who works, and how far triggers were read.

    *doing* says by its number what a run does whose row in the ledger has no end yet.
    """

    pipeline: str
    board: tuple[BoardRow, ...]
    runs: tuple[Run, ...]
    ledger: tuple[LedgerRow, ...]
    workers: tuple[Presence, ...]
    marks: tuple[Mark, ...]
    doing: dict[int, str] = {}


class ReleaseRow(Fact):
    """A release and where it has been, newest first. *at* is when it was made, in ms since 1970."""

    release: str
    label: str
    image_digest: str
    at: int
    places: tuple[StageRow, ...]
    now_in: tuple[str, ...]


def status(workspace: Workspace, store: Store, *, last: int = 5) -> Status:
    """Return the board and what goes on; *last* rows of the ledger."""
    seen = store.ledger.all(last, workspace.spec.name)
    open_rows = {row.run for row in seen if row.ended is None}
    going = store.runs.going(workspace.spec.name)
    return Status(
        pipeline=workspace.spec.name,
        board=tuple(board(workspace, store, going)),
        runs=tuple(going),
        ledger=tuple(seen),
        workers=tuple(alive(store)),
        marks=tuple(store.marks.all(workspace.spec.name)),
        doing={run.number: _doing(store, run) for run in going if run.number in open_rows},
    )


def board(workspace: Workspace, store: Store, going: list[Run] | None = None) -> list[BoardRow]:
    """Return one row a stage, in the order of the way."""
    runs = store.runs.going(workspace.spec.name) if going is None else going
    return [_row(workspace, store, stage, runs) for stage in workspace.spec.stages]


def releases(workspace: Workspace, store: Store, limit: int = 20) -> list[ReleaseRow]:
    """Return the newest releases and where they have been."""
    current = {stage: store.stages.current(stage) for stage in workspace.spec.stages}
    return [
        ReleaseRow(
            release=release.id,
            label=release.label,
            image_digest=release.image_digest,
            at=at,
            places=tuple(store.stages.of(release.id)),
            now_in=tuple(stage for stage, row in current.items() if row is not None and row.release == release.id),
        )
        for release, at in store.releases.made(limit)
    ]


def _row(workspace: Workspace, store: Store, stage: str, runs: list[Run]) -> BoardRow:
    written = store.stages.current(stage)
    row = BoardRow(stage=stage, target=workspace.spec.stages[stage].target, waiting=_waiting(store, stage, runs))
    if written is not None:
        row = row.model_copy(
            update={
                "label": written.label,
                "release": written.release,
                "since": written.at,
                "endpoint": written.endpoint,
                "health": "stopped",
                "problem": "does not run; `stageway up` starts it",
            }
        )
    try:
        seen = open_target(workspace, stage).observe(service_name(workspace, stage))
    except StagewayError as error:
        return row.model_copy(update={"health": "away", "problem": error.message})
    return _as_seen(row, written, seen)


def _as_seen(row: BoardRow, written: StageRow | None, seen: Observed) -> BoardRow:
    serving = seen.serving
    if serving is None:
        failed = next((one for one in seen.revisions if one.health == "failed"), None)
        return row if failed is None else row.model_copy(update={"health": "failed", "problem": failed.reason})
    agrees = written is not None and written.release == serving.release
    disagrees = "" if agrees or written is None else f"the history says {written.label} ({written.release})"
    return row.model_copy(
        update={
            "label": serving.label,
            "release": serving.release,
            "since": written.at if written is not None and agrees else serving.since,
            "endpoint": seen.endpoint,
            "health": serving.health,
            "problem": "; ".join(problem for problem in (disagrees, _trouble(serving)) if problem),
        }
    )


def _trouble(serving: Revision) -> str:
    """Say why what has the traffic does not answer, and how it starts again when it only stopped."""
    if serving.health in ("ready", "starting"):
        return ""
    if serving.health == "stopped" and "stageway up" not in serving.reason:
        return f"{serving.reason or 'stopped'}; `stageway up` starts it"
    return serving.reason or serving.health


def _doing(store: Store, run: Run) -> str:
    if run.state == "running":
        return "running" if at_work(store, run) else f"its process is gone; `stageway run {run.label}` goes on"
    said = f"waits at {run.stage}" if run.state == "waiting" and run.stage else run.state
    return f"{said}: {run.reason}" if run.reason else said


def _waiting(store: Store, stage: str, runs: list[Run]) -> tuple[str, ...]:
    found = [f"{run.label}: {run.reason}" for run in runs if run.state == "waiting" and run.stage == stage]
    hold = store.holds.get(stage)
    if hold is not None:
        found.insert(0, f"held since {clock(hold.since)} by {hold.by}: {hold.reason}; `stageway resume {stage}`")
    return tuple(found)
