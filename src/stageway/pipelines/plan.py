"""What a run of a version would do, and what stands in its way: read only, nothing is started.

The gates are judged on today's evidence, by the same code that judges them in the run.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from stageway import store as stores
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import StagewayError
from stageway.evidence import Evidence
from stageway.facts import Fact
from stageway.gates.base import Judged, No, NotEnough, assess
from stageway.pipelines.steps import Step, steps
from stageway.pipelines.words import clock
from stageway.store import Store
from stageway.store.runs import Run
from stageway.tasks.base import known, open_target
from stageway.tasks.judging import conditions, standing
from stageway.tasks.placing import refusals, want


class Condition(Fact):
    """One thing between a version and a stage: open, closed, or waiting for what is missing; *who* can clear it."""

    stage: str
    gate: str
    state: Literal["open", "closed", "missing"]
    text: str
    who: str = ""

    @classmethod
    def of(cls, stage: str, judged: Judged) -> Condition:
        verdict = judged.verdict
        if isinstance(verdict, NotEnough):
            return cls(stage=stage, gate=judged.gate, state="missing", text=judged.sentence(), who=verdict.who)
        state: Literal["open", "closed"] = "closed" if isinstance(verdict, No) else "open"
        who = "whoever registers a better version" if state == "closed" else ""
        return cls(stage=stage, gate=judged.gate, state=state, text=judged.sentence(), who=who)


class StagePlan(Fact):
    """What would happen in one stage. *says* are the target's sentences; *refused* what it cannot honour."""

    stage: str
    target: str
    holds: str = ""
    held: str = ""
    conditions: tuple[Condition, ...] = ()
    says: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Plan(Fact):
    """The steps of a run, and what each stage would say to it today. *run* goes for the version already."""

    label: str
    release: str | None
    steps: tuple[Step, ...]
    stages: tuple[StagePlan, ...]
    run: Run | None = None

    @property
    def refused(self) -> tuple[str, ...]:
        """What ``run`` would refuse, whatever the version."""
        return tuple(sentence for stage in self.stages for sentence in stage.refused)


def plan(workspace: Workspace, reference: str) -> Plan:
    """Say what ``stageway run REFERENCE`` would do."""
    dossier = known(workspace, reference)
    model = dossier.need_model()
    with stores.open(workspace) as store:
        going = [run for run in store.runs.going(workspace.spec.name) if run.model == model.id]
        return Plan(
            label=model.label,
            release=dossier.release.id if dossier.release is not None else None,
            steps=steps(workspace.spec),
            stages=tuple(_stage(workspace, store, dossier, stage) for stage in workspace.spec.stages),
            run=going[0] if going else None,
        )


def _stage(workspace: Workspace, store: Store, dossier: Dossier, stage: str) -> StagePlan:
    hold, current = store.holds.get(stage), store.stages.current(stage)
    return StagePlan(
        stage=stage,
        target=workspace.spec.stages[stage].target,
        holds=current.label if current is not None else "",
        held=f"held since {clock(hold.since)} by {hold.by}: {hold.reason}" if hold is not None else "",
        conditions=tuple(judged(workspace, store, dossier, stage)),
        says=tuple(_says(workspace, dossier, stage)),
        refused=tuple(refusals(workspace, stage)),
    )


def judged(workspace: Workspace, store: Store, dossier: Dossier, stage: str) -> list[Condition]:
    """Judge what stands between a version and *stage* today; a version that is not packaged has its metrics only."""
    try:
        if dossier.release is not None:
            first = workspace.spec.before(stage) is None
            found = conditions(dossier, workspace, store, stage, proven_before=not first)
        else:
            model = dossier.need_model()
            evidence = {"metrics": Evidence(kind="metrics", facts=dict(model.metrics))}
            gates = workspace.spec.stages[stage].gates
            now = standing(workspace, store, stage, model.label)
            found = assess(gates, evidence, now, datetime.now(UTC)) if gates else []
    except StagewayError as error:
        return [Condition(stage=stage, gate="target", state="missing", text=error.message, who="whoever runs it")]
    return [Condition.of(stage, one) for one in found]


def _says(workspace: Workspace, dossier: Dossier, stage: str) -> list[str]:
    if dossier.release is None:
        return ["what differs there is known when the version is packaged"]
    try:
        target = open_target(workspace, stage)
        return target.plan(want(workspace, stage, dossier.release, dossier.profile))
    except StagewayError as error:
        return [error.message]
