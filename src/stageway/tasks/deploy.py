"""The task ``deploy``: place a release in a stage, the first one of a pipeline or any when called alone."""

from __future__ import annotations

from typing import Annotated

from stageway import store
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.tasks.base import open_target, serving_already
from stageway.tasks.judging import conditions, require
from stageway.tasks.placing import alone, check, place, remember, still_registered, want


def deploy(
    dossier: Dossier, workspace: Workspace, *, stage: Annotated[str, "Stage of stageway.yml to place the release in."]
) -> Dossier:
    """Place a release in a stage, if the stage's gates agree.

    It does not ask whether the release is proven in the stage before; ``promote`` does.
    """
    release = dossier.need_release()
    open_target(workspace, stage)
    check(workspace, stage)
    with store.open(workspace) as opened, alone(workspace, stage):
        still_registered(workspace, release)
        wanted = want(workspace, stage, release, dossier.profile)
        remember(dossier, opened)
        if not serving_already(workspace, stage, release):
            require(conditions(dossier, workspace, opened, stage, proven_before=False), release.label, stage)
        return dossier.deployed(place(workspace, opened, wanted, "deployed"))
