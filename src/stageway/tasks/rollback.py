"""The task ``rollback``: put the last release that proved good back into a stage.

By hand it holds the stage, so that the next version does not undo it; by itself it marks the bad release instead.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from stageway import output, store
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import RefusedError
from stageway.evidence import Profile
from stageway.release import Release
from stageway.targets.base import Revision
from stageway.tasks.base import open_registry, open_target, service_name
from stageway.tasks.placing import alone, place, want

if TYPE_CHECKING:
    from stageway.store import Store
    from stageway.store.stages import StageRow


def rollback(
    dossier: Dossier,
    workspace: Workspace,
    *,
    stage: Annotated[str, "Stage of stageway.yml to roll back."],
    to: Annotated[str | None, "Release id or NAME:VERSION; default: the last one that proved good before."] = None,
    by: Annotated[str | None, "Who rolls back; default: the current user."] = None,
    reason: Annotated[str | None, "Why, for the history and for whoever finds the stage held."] = None,
    automatic: Annotated[bool, "Reject the release that is replaced, and do not hold the stage."] = False,
) -> Dossier:
    """Put the last release that proved good back into a stage, and hold the stage until `stageway resume`.

    Never to a release that was rejected there.
    """
    open_target(workspace, stage)
    with store.open(workspace) as opened, alone(workspace, stage):
        rows = opened.stages.history(stage, 1000)
        serving = open_target(workspace, stage).observe(service_name(workspace, stage)).serving
        bad = dossier.release.id if automatic and dossier.release is not None else _current(rows, serving)
        if automatic and bad is not None and _verdict(rows, bad) != "rejected":
            opened.stages.rejected(stage, bad, reason or "rolled back by the pipeline")
        row = _named(rows, to, stage) if to is not None else _before(rows, bad, stage)
        if automatic and serving is not None and serving.release not in (bad, row.release):
            output.note(f"{stage} answers with {serving.label} ({serving.release}), so nothing is rolled back")
            return dossier
        release = _stored(opened, row)
        profile = opened.evidence.of(release.id).get("profile")
        wanted = want(workspace, stage, release, Profile.model_validate(profile.facts) if profile else None)
        if not automatic:
            opened.holds.set(stage, reason or f"rolled back to {release.label}", by or _user())
        grown = dossier.deployed(place(workspace, opened, wanted, "rolled-back"))
    if grown.release is None:
        grown = grown.having(release=release, model=open_registry(workspace).find(release.model))
    return grown


def _current(rows: Sequence[StageRow], serving: Revision | None) -> str | None:
    """Return the release to leave: the history's, unless the target reports one that never came to be written down."""
    if serving is not None and all(row.release != serving.release for row in rows):
        return serving.release
    return rows[0].release if rows else None


def _before(rows: Sequence[StageRow], bad: str | None, stage: str) -> StageRow:
    """Return the newest good row from before *bad* was last placed on its own account, not by a rollback."""
    placed = [at for at, row in enumerate(rows) if row.release == bad and row.how != "rolled-back"]
    older = rows[placed[0] + 1 :] if placed else rows
    for row in older:
        if row.release != bad and row.verdict == "proven":
            return row
    raise RefusedError(f"{stage}: no release proved good before, so there is nothing to roll back to; {_had(rows)}")


def _named(rows: Sequence[StageRow], to: str, stage: str) -> StageRow:
    named = [row for row in rows if to in (row.release, row.label)]
    if not named:
        raise RefusedError(f"{stage}: {to!r} was never there; {_had(rows)}")
    for row in named:
        if row.verdict == "proven":
            return row
    why = f"was rejected there: {named[0].why}" if named[0].verdict == "rejected" else "was never proven there"
    raise RefusedError(f"{stage}: {named[0].label} ({named[0].release}) {why}; {_had(rows)}")


def _had(rows: Sequence[StageRow]) -> str:
    """List what a stage has had, newest first, each release once."""
    once = {row.release: f"{row.label} ({row.release}, {row.verdict or 'not proven'})" for row in reversed(rows)}
    return f"it has had: {', '.join(reversed(once.values()))}" if once else "nothing was ever placed there"


def _verdict(rows: Sequence[StageRow], release: str) -> str | None:
    return next((row.verdict for row in rows if row.release == release), None)


def _stored(opened: Store, row: StageRow) -> Release:
    release = opened.releases.get(row.release)
    if release is None:
        raise RefusedError(f"{row.stage}: {row.label} ({row.release}) is in the history, and its release is gone")
    return release


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
