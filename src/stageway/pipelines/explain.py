"""Why a version is where it is: what happened step by step, what stands in its way, and who can clear it."""

from __future__ import annotations

from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import RegistryError, TryAgainError
from stageway.facts import Fact
from stageway.pipelines.board import BoardRow, board
from stageway.pipelines.plan import Condition, judged
from stageway.pipelines.steps import PLACING, steps
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
    """All that is known of one version. *conditions* are those of the stage it would enter next, judged now.

    *next_command* takes it there, when nobody has to do anything else first and no run goes for it.
    """

    label: str
    release: str | None
    summary: str
    ledger: tuple[LedgerRow, ...]
    runs: tuple[RunStory, ...]
    places: tuple[StageRow, ...]
    serves: tuple[BoardRow, ...]
    next_stage: str | None
    conditions: tuple[Condition, ...]
    next_command: str = ""

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
    stories = tuple(RunStory(run=run, tasks=tuple(store.runs.tasks(run.number))) for run in runs)
    conditions: list[Condition] = []
    command = ""
    if dossier is not None and next_stage is not None:
        conditions = judged(workspace, store, dossier, next_stage)
        if stories and not any(one.gate == "history" and one.state == "closed" for one in conditions):
            conditions = _stopped(workspace, stories[0], next_stage, [row.stage for row in serves]) + conditions
        if store.holds.get(next_stage) is None and not any(run.going for run in runs):
            command = _command(workspace, label, release, next_stage, conditions)
    return Explanation(
        label=label,
        release=release,
        summary=_summary(label, ledger, runs, gone=dossier is None),
        ledger=tuple(ledger),
        runs=stories,
        places=tuple(store.stages.of(release)) if release is not None else (),
        serves=tuple(serves),
        next_stage=next_stage,
        conditions=tuple(conditions),
        next_command=command,
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


def _stopped(workspace: Workspace, story: RunStory, stage: str, held: list[str]) -> list[Condition]:
    """Return why the last run ended before *stage*, unless its gates said so: they are judged again, by what is now.

    A version that serves behind the task that stopped it got over it since.
    """
    run = story.run
    task = next((one for one in story.tasks if one.state in ("refused", "failed")), None)
    if run.outcome not in ("stopped", "failed") or task is None or task.error.startswith(f"{run.label} may not enter "):
        return []
    enters = {step.stage: step.number for step in steps(workspace.spec) if step.task in PLACING}
    if any(enters[one] >= task.number for one in held):
        return []
    way = f"`stageway run {run.label}` after the fix"
    who = f"whoever owns the entry script or the model; {way}"
    if run.exit_code == TryAgainError.exit_code:
        who = f"whoever runs what was away; {way}"
    return [Condition(stage=stage, gate=task.task, state="closed", text=run.reason, who=who)]


def _command(workspace: Workspace, label: str, release: str | None, stage: str, conditions: list[Condition]) -> str:
    """Return the command that takes the version into *stage*; empty while somebody has to clear something first."""
    if not all(one.state == "open" or one.by_the_run for one in conditions):
        return ""
    unproven = any(one.by_the_run for one in conditions)
    if release is None or unproven or workspace.spec.before(stage) is None:
        return f"stageway run {label}"
    return f"stageway promote {label} --to {stage}"


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
