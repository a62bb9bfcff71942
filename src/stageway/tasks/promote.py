"""The task ``promote``: move a release that is proven in one stage into the next, if that stage's gates agree."""

from __future__ import annotations

from typing import Annotated

from stageway import output, store
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.tasks.base import open_target, serving_already
from stageway.tasks.judging import conditions, require
from stageway.tasks.placing import alone, check, place, remember, still_registered, want


def promote(
    dossier: Dossier, workspace: Workspace, *, to: Annotated[str, "Stage of stageway.yml to move the release into."]
) -> Dossier:
    """Move a proven release to the next stage if its gates agree.

    Refused when a gate says no (exit code 1); waits when evidence or a person is missing (exit code 4).
    """
    release = dossier.need_release()
    open_target(workspace, to)
    check(workspace, to)
    with store.open(workspace) as opened, alone(workspace, to):
        still_registered(workspace, release)
        wanted = want(workspace, to, release, dossier.profile)
        remember(dossier, opened)
        if serving_already(workspace, to, release):
            # Placed before; a kill may have come before alias and history were written.
            output.note(f"{to} answers with {release.label} ({release.id}) already")
        else:
            judged = conditions(dossier, workspace, opened, to)
            for one in judged:
                output.note(f"{to}: {one.sentence()}")
            require(judged, release.label, to)
        return dossier.deployed(place(workspace, opened, wanted, "promoted"))
