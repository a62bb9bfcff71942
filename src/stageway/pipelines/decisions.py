"""What people decide about a stage: approve or reject a version, or let a held stage go on.

The decision and the waking of the run that waits for it are one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import ConfigError, RefusedError
from stageway.gates.base import evidence_digest
from stageway.pipelines.ledger import wake
from stageway.store import Store
from stageway.store.decisions import Decision
from stageway.store.holds import Hold
from stageway.store.runs import Run
from stageway.tasks.base import known
from stageway.tasks.judging import candidate


@dataclass(frozen=True)
class Decided:
    """The decision as it was recorded, and the run that goes on because of it, if one waited."""

    decision: Decision
    run: Run | None


def decide(
    store: Store,
    workspace: Workspace,
    reference: str,
    stage: str,
    decision: Literal["approve", "reject"],
    by: str,
    note: str = "",
) -> Decided:
    """Record one person's word on a version's release for *stage*; unattested: nothing proves who it was."""
    spec = workspace.spec.stages.get(stage)
    if spec is None:
        raise ConfigError(f"no stage is called {stage!r}; stageway.yml has: {', '.join(workspace.spec.stages)}")
    if not any(gate.name == "approval" for gate in spec.gates):
        raise ConfigError(
            f"stages.{stage}.gates: has no approval, so nothing waits for a decision; add `- approval: {{}}`"
        )
    dossier = known(workspace, reference)
    model = dossier.need_model()
    run = _waiting(store, workspace, dossier, stage)
    if run is not None:
        dossier = store.runs.dossier(run.number)
    if dossier.release is None:
        raise RefusedError(
            f"{model.label}: is not packaged yet, so there is nothing to decide on; `stageway run {model.label}`"
        )
    seen = candidate(dossier, workspace, store, stage)
    with store.write():
        made = Decision(
            stage=stage,
            release=dossier.release.id,
            model=model.label,
            decision=decision,
            by=by,
            note=note,
            at=store.now(),
            evidence=evidence_digest(seen),
        )
        store.decisions.put(made)
        going = [one for one in store.runs.going(workspace.spec.name) if one.model == model.id]
        for one in going:
            if one.state == "running" or (one.state, one.stage) == ("waiting", stage):
                wake(store, one)
    return Decided(made, None if run is None else store.runs.get(run.number))


def resume(store: Store, workspace: Workspace, stage: str) -> tuple[Hold | None, list[Run]]:
    """Lift the hold of *stage*; return it (``None``: it was not held) and the runs that go on."""
    if stage not in workspace.spec.stages:
        raise ConfigError(f"no stage is called {stage!r}; stageway.yml has: {', '.join(workspace.spec.stages)}")
    with store.write():
        hold = store.holds.get(stage)
        store.holds.clear(stage)
        going = store.runs.going(workspace.spec.name) if hold is not None else []
        waiting = [run for run in going if (run.state, run.stage) == ("waiting", stage)]
        woken = [run for run in waiting if wake(store, run)]
        for run in going:
            if run.state == "running":
                wake(store, run)
    return hold, woken


def _waiting(store: Store, workspace: Workspace, dossier: Dossier, stage: str) -> Run | None:
    model = dossier.need_model().id
    for run in store.runs.going(workspace.spec.name):
        if run.model == model and run.state == "waiting" and run.stage == stage:
            return run
    return None
