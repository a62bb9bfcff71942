"""What a run of a version would do, and what stands in its way: read only, nothing is started.

The gates are judged on today's evidence, by the same code that judges them in the run; what the run itself will find
out is said so, and asked of nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, cast

from stageway import plugins
from stageway import store as stores
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import StagewayError
from stageway.evidence import Evidence
from stageway.facts import Fact
from stageway.gates.base import Gate, Judged, No, NotEnough, assess
from stageway.pipelines.steps import Step, steps
from stageway.pipelines.words import clock
from stageway.release import Model
from stageway.specs import GateSpec
from stageway.store import Store
from stageway.store.runs import Run
from stageway.tasks.base import known, open_target
from stageway.tasks.judging import candidate, conditions, standing
from stageway.tasks.placing import refusals, want


class Condition(Fact):
    """One thing between a version and a stage: open, closed, or waiting for what is missing; *who* can clear it.

    Nobody has to where *who* is empty: a step of the run makes what is missing.
    """

    stage: str
    gate: str
    state: Literal["open", "closed", "missing"]
    text: str
    who: str = ""

    @property
    def by_the_run(self) -> bool:
        """Whether a run makes what is missing, before it needs it."""
        return self.state == "missing" and not self.who

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
    """Judge what stands between a version and *stage* today.

    One that is not packaged has its metrics, and the contract that its signature declares.
    """
    gates = workspace.spec.stages[stage].gates
    try:
        if dossier.release is not None:
            first = workspace.spec.before(stage) is None
            evidence = candidate(dossier, workspace, store, stage)
            found = conditions(dossier, workspace, store, stage, proven_before=not first)
        else:
            evidence = _declared(dossier.need_model())
            now = standing(workspace, store, stage, dossier.need_model().label)
            found = assess(gates, evidence, now, datetime.now(UTC)) if gates else []
        reads = {"smoke-test": ("smoke",)} | {spec.name: _reads(spec) for spec in gates}
    except StagewayError as error:
        return [Condition(stage=stage, gate="target", state="missing", text=error.message, who="whoever runs it")]
    return [
        _by_the_run(workspace, dossier, stage, one, [kind for kind in reads.get(one.gate, ()) if kind not in evidence])
        or Condition.of(stage, one)
        for one in found
    ]


def _declared(model: Model) -> dict[str, Evidence]:
    found = {"metrics": Evidence(kind="metrics", facts=dict(model.metrics))}
    if model.signature is not None:
        found["contract"] = Evidence(kind="contract", facts=model.signature)
    return found


def _reads(spec: GateSpec) -> Sequence[str]:
    gate_class = plugins.load("gate", spec.name)
    given = spec.options
    options = given if isinstance(given, gate_class.Options) else gate_class.Options.model_validate(given or {})
    return cast(Gate, gate_class(options)).needs()


def _by_the_run(
    workspace: Workspace, dossier: Dossier, stage: str, judged: Judged, missing: Sequence[str]
) -> Condition | None:
    """Return what is missing as what the run makes before it enters *stage*; ``None`` where it does not.

    Without samples nothing has latencies, so a gate that misses its measurements says itself what to do.
    """
    if not isinstance(judged.verdict, NotEnough):
        return None
    before = workspace.spec.before(stage)
    makes = {"contract": "package, which asks the service for it"}
    if judged.gate == "smoke-test" or dossier.need_model().has_samples or workspace.spec.serve.samples is not None:
        makes["profile"] = "profile, which measures it"
        if before is not None:
            makes["smoke"] = f"smoke-test {before}, which measures it"
    step = next((makes[kind] for kind in missing if kind in makes), None)
    if step is None:
        return None
    text = f"{judged.gate}: judged after {step} in the same run"
    return Condition(stage=stage, gate=judged.gate, state="missing", text=text)


def _says(workspace: Workspace, dossier: Dossier, stage: str) -> list[str]:
    if dossier.release is None:
        return ["what differs there is known when the version is packaged"]
    try:
        target = open_target(workspace, stage)
        return target.plan(want(workspace, stage, dossier.release, dossier.profile))
    except StagewayError as error:
        return [error.message]
