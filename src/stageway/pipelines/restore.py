"""Start again what should run: after a reboot, or when somebody stopped the services."""

from __future__ import annotations

from stageway import output
from stageway.config.workspace import Workspace
from stageway.errors import StagewayError
from stageway.evidence import Profile
from stageway.store import Store
from stageway.store.stages import StageRow
from stageway.targets.base import Observed
from stageway.tasks.base import open_target, service_name
from stageway.tasks.placing import alone, place, want


def restore(workspace: Workspace, store: Store) -> list[str]:
    """Place each stage's release again where nothing answers; return those stages. What fails is said, not raised."""
    found: list[str] = []
    for stage in workspace.spec.stages:
        row = store.stages.current(stage)
        try:
            if row is not None and _place_again(workspace, store, row):
                found.append(stage)
        except StagewayError as error:
            output.note(f"{stage}: cannot be started: {error.message}")
    return found


def _place_again(workspace: Workspace, store: Store, row: StageRow) -> bool:
    target, release = open_target(workspace, row.stage), store.releases.get(row.release)
    service = service_name(workspace, row.stage)
    if release is None or _runs(target.observe(service)):
        return False
    with alone(workspace, row.stage):
        if _runs(target.observe(service)):
            return False
        profile = store.evidence.of(release.id).get("profile")
        known = Profile.model_validate(profile.facts) if profile is not None else None
        place(workspace, store, want(workspace, row.stage, release, known), row.how)
    return True


def _runs(observed: Observed) -> bool:
    """Say whether something is there; what was stopped still has its share of the traffic that will come."""
    return observed.serving is not None and observed.serving.health != "stopped"
