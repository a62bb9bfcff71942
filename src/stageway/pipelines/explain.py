"""Why a version is where it is: what happened step by step, what stands in its way, and who can clear it."""

from __future__ import annotations

from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import RegistryError
from stageway.facts import Fact
from stageway.pipelines.board import BoardRow, board
from stageway.pipelines.plan import Condition, judged
from stageway.pipelines.words import clock
from stageway.release import Reference
from stageway.store import Store
from stageway.store.ledger import LedgerRow
from stageway.store.runs import Run, TaskRow
from stageway.store.stages import StageRow
from stageway.tasks.base import known


class RunStory(Fact):
    """One run with its tasks; ``TaskRow.detail`` is what each said."""

    run: Run
    tasks: tuple[TaskRow, ...]


class Explanation(Fact):
    """All that is known of one version. *conditions* are those of the stage it would enter next, judged now."""

    label: str
    release: str | None
    summary: str
    ledger: tuple[LedgerRow, ...]
    runs: tuple[RunStory, ...]
    places: tuple[StageRow, ...]
    serves: tuple[BoardRow, ...]
    next_stage: str | None
    conditions: tuple[Condition, ...]

    @property
    def unmet(self) -> tuple[Condition, ...]:
        """What has to be cleared first, and by whom."""
        return tuple(one for one in self.conditions if one.state != "open")


def explain(workspace: Workspace, store: Store, reference: str) -> Explanation:
    """Explain a version. One that is gone from the registry is explained from what the store remembers."""
    asked = Reference.parse(reference)
    try:
        dossier: Dossier | None = known(workspace, reference)
    except RegistryError:
        dossier = None
        if asked.version is None or not store.ledger.of(asked.name, asked.version):
            raise
    label = dossier.need_model().label if dossier is not None else str(asked)
    name, _, version = label.partition(":")
    ledger, runs = store.ledger.of(name, version), store.runs.of(name, version)
    release = dossier.release.id if dossier is not None and dossier.release is not None else None
    serves = [row for row in board(workspace, store) if row.label == label]
    next_stage = _next(workspace, serves, runs) if dossier is not None else None
    return Explanation(
        label=label,
        release=release,
        summary=_summary(label, ledger, runs, gone=dossier is None),
        ledger=tuple(ledger),
        runs=tuple(RunStory(run=run, tasks=tuple(store.runs.tasks(run.number))) for run in runs),
        places=tuple(store.stages.of(release)) if release is not None else (),
        serves=tuple(serves),
        next_stage=next_stage,
        conditions=tuple(judged(workspace, store, dossier, next_stage))
        if dossier is not None and next_stage is not None
        else (),
    )


def _next(workspace: Workspace, serves: list[BoardRow], runs: list[Run]) -> str | None:
    """Return the stage that its last run did not get into, else the first after the last that it serves in.

    ``None`` for a version that was through: it serves in the last stage, or was replaced there.
    """
    last = runs[0] if runs else None
    if last is not None and last.outcome == "promoted":
        return None
    stages, held = list(workspace.spec.stages), [row.stage for row in serves]
    if last is not None and last.stage in stages and last.stage not in held:
        return last.stage
    furthest = max((stages.index(stage) for stage in held), default=-1)
    return stages[furthest + 1] if furthest + 1 < len(stages) else None


def _summary(label: str, ledger: list[LedgerRow], runs: list[Run], *, gone: bool) -> str:
    tail = "; it is gone from the registry" if gone else ""
    if runs:
        run = runs[0]
        if run.state == "ended":
            return f"{label}: run {run.number} {run.outcome} at {clock(run.ended_at or 0)}: {run.reason}{tail}"
        words = {"queued": "waits for its turn", "running": f"is done by {run.worker}", "waiting": "waits"}[run.state]
        return f"{label}: run {run.number} {words}" + (f": {run.reason}" if run.reason else "") + tail
    if ledger:
        row = ledger[0]
        return (
            f"{label}: {row.ended or 'seen'} at {clock(row.ended_at or row.seen_at)}: {row.reason or row.cause}{tail}"
        )
    return f"{label}: no trigger has seen it; `stageway run {label}` starts it"
