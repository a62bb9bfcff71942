"""May this release enter that stage? Collects what gates judge; promote, plan, explain and approve share the answer.

What runs is asked of the targets, what is known of it (and what ran, where they know nothing) comes from the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import RefusedError, WaitingError
from stageway.evidence import Evidence
from stageway.gates.base import Incumbent, Judged, No, NotEnough, Standing, Yes, assess
from stageway.tasks.base import open_target, service_name

if TYPE_CHECKING:
    from stageway.store import Store
    from stageway.store.stages import StageRow


def evidence_of(dossier: Dossier) -> tuple[Evidence, ...]:
    """Return what the dossier knows of its release, each piece under the release's id."""
    model, release = dossier.need_model(), dossier.need_release()
    found: dict[tuple[str, str | None], Evidence] = {}
    for one in dossier.evidence:
        if one.release in (None, release.id):
            found[one.kind, one.stage] = one.model_copy(update={"release": release.id})
    metrics = Evidence(kind="metrics", facts=dict(model.metrics), release=release.id)
    found.setdefault(("metrics", None), metrics)
    if dossier.contract is not None:
        found[("contract", None)] = Evidence(kind="contract", facts=dossier.contract, release=release.id)
    if dossier.profile is not None:
        found[("profile", None)] = Evidence(kind="profile", facts=dossier.profile.model_dump(), release=release.id)
    return tuple(found.values())


def candidate(dossier: Dossier, workspace: Workspace, store: Store, stage: str) -> dict[str, Evidence]:
    """Return the evidence by kind that counts for entering *stage*.

    The smoke test is that of the stage before; what the dossier does not know comes from the store.
    """
    release = dossier.need_release()
    found = _for_stage(store.evidence.of(release.id, stage=workspace.spec.before(stage)), workspace, stage)
    own = [one for one in evidence_of(dossier) if one.stage in (None, workspace.spec.before(stage))]
    found |= _for_stage({one.kind: one for one in own}, workspace, stage)
    decisions = [one.model_dump(mode="json") for one in store.decisions.of(stage, release.id)]
    found["approval"] = Evidence(kind="approval", facts={"decisions": decisions}, release=release.id, stage=stage)
    return found


def standing(workspace: Workspace, store: Store, stage: str, label: str) -> Standing:
    """Return what every stage holds, as its target reports it.

    Where a target reports nothing (another machine's does not know), what was placed there last is still to be beaten.
    """
    incumbents: dict[str, Incumbent] = {}
    for name in workspace.spec.stages:
        serving = open_target(workspace, name).observe(service_name(workspace, name)).serving
        row = store.stages.current(name) if serving is None else None
        held = (serving.label, serving.release) if serving else (row.label, row.release) if row else None
        if held is not None:
            known = _for_stage(store.evidence.of(held[1], stage=workspace.spec.before(stage)), workspace, stage)
            incumbents[name] = Incumbent(*held, known)
    return Standing(stage, label, incumbents)


def _for_stage(evidence: Mapping[str, Evidence], workspace: Workspace, stage: str) -> dict[str, Evidence]:
    """Keep what has no stage, and what was gathered in the stage before."""
    before = workspace.spec.before(stage)
    return {kind: one for kind, one in evidence.items() if one.stage is None or one.stage == before}


def conditions(
    dossier: Dossier, workspace: Workspace, store: Store, stage: str, *, proven_before: bool = True
) -> list[Judged]:
    """Judge everything that stands between the dossier's release and *stage*: hold, proof, rejection, gates."""
    label = dossier.need_release().label
    evidence = candidate(dossier, workspace, store, stage)
    gates = workspace.spec.stages[stage].gates
    judged = _proofs(dossier, workspace, store, stage, evidence) if proven_before else []
    hold = store.holds.get(stage)
    if hold is not None:
        what = f"the hold of {stage} to be lifted ({hold.by}: {hold.reason})"
        judged.append(Judged("hold", NotEnough(what, f"`stageway resume {stage}`", "anyone with this workspace")))
    if not gates:
        return judged
    return judged + assess(gates, evidence, standing(workspace, store, stage, label), datetime.now(UTC))


def _proofs(
    dossier: Dossier, workspace: Workspace, store: Store, stage: str, evidence: Mapping[str, Evidence]
) -> list[Judged]:
    release, before = dossier.need_release(), workspace.spec.before(stage)
    found: list[Judged] = []
    for name in (before, stage):
        row = _row(store, name, release.id) if name is not None else None
        if row is not None and row.verdict == "rejected":
            found.append(Judged("history", No(f"{release.label} ({release.id}) was rejected in {name}: {row.why}")))
    if before is None:
        return found
    if "smoke" not in evidence:
        how = f"`stageway smoke-test {release.label} --stage {before}`"
        found.append(Judged("smoke-test", NotEnough(f"a passed smoke test of {release.label} in {before}", how)))
    elif _passed(evidence):
        found.append(Judged("smoke-test", Yes(f"{release.label} is proven in {before}")))
    elif not found:
        found.append(Judged("smoke-test", No(f"{release.label} failed its smoke test in {before}")))
    return found


def _passed(evidence: Mapping[str, Evidence]) -> bool:
    return "smoke" in evidence and evidence["smoke"].facts.get("passed") is True


def _row(store: Store, stage: str, release: str) -> StageRow | None:
    return next((row for row in store.stages.history(stage, 1000) if row.release == release), None)


def require(judged: Sequence[Judged], label: str, stage: str) -> None:
    """Return when every condition is met.

    Raises ``RefusedError`` with every no, else ``WaitingError`` with every missing piece and who can clear it.
    """
    everything = "\n".join(("+ " if one.open else "- ") + one.sentence() for one in judged)
    refused = [one.sentence() for one in judged if isinstance(one.verdict, No)]
    if refused:
        raise RefusedError(f"{label} may not enter {stage}: {'; '.join(refused)}", detail=everything)
    missing = [f"{one.sentence()} ({one.verdict.who})" for one in judged if isinstance(one.verdict, NotEnough)]
    if missing:
        raise WaitingError(f"{label} waits before {stage}: {'; '.join(missing)}", detail=everything)
