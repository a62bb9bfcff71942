"""Commands by which a person decides: approve, reject, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stageway.cli.common import JsonOption, WorkspaceOption, open_workspace, print_json, single, who
from stageway.cli.progress import told
from stageway.cli.runs import VersionArgument, end, opened_store, says

if TYPE_CHECKING:
    from stageway.config.workspace import Workspace

StageOption = Annotated[
    str | None, typer.Option(help="The stage; default: the only one with an approval gate.", show_default=False)
]
NoteOption = Annotated[str, typer.Option(help="Why; kept with the decision.", show_default=False)]


def _decide(
    decision: Literal["approve", "reject"],
    version: str,
    stage: str | None,
    note: str,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Record a decision; carry the run on from here when no worker lives."""
    from stageway.errors import ConfigError
    from stageway.pipelines.board import status
    from stageway.pipelines.decisions import decide
    from stageway.pipelines.runner import Runner

    if stage is None:
        asking = [name for name, spec in workspace.spec.stages.items() if any(g.name == "approval" for g in spec.gates)]
        if len(asking) != 1:
            raise ConfigError(
                f"stageway {decision}: which stage? --stage {' or '.join(asking)}"
                if asking
                else "no stage of stageway.yml has an approval gate; add `- approval: {}` to its gates"
            )
        stage = asking[0]
    with opened_store(workspace) as store:
        made = decide(store, workspace, version, stage, decision, who(), note)
        if not as_json:
            done = {"approve": "approved", "reject": "rejected"}[decision]
            typer.echo(f"{made.decision.model} is {done} for {stage} by {made.decision.by} (unattested)")
        if made.run is None:
            if as_json:
                print_json(made.decision)
            elif decision == "approve":
                typer.echo(f"no run waits for it; `stageway promote {made.decision.model} --to {stage}` uses it")
            return
        if status(workspace, store).workers:
            if as_json:
                print_json(made.run)
            else:
                typer.echo(f"run {made.run.number} goes on in the worker; `stageway status` shows how far")
            return
        with told() as tell:
            run = Runner(workspace, store).work(run_id=made.run.number, on_event=tell)
        # A rejected version that is stopped is what was asked for, so it is no failure of this command.
        end(store, run or made.run, as_json, failing=decision == "approve")


def _approve(
    version: VersionArgument,
    stage: StageOption = None,
    note: NoteOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a version for a stage. The run that waits goes on, in a worker if one lives, else here."""
    _decide("approve", version, stage, note, open_workspace(workspace), as_json)


def _reject(
    version: VersionArgument,
    stage: StageOption = None,
    note: NoteOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reject a version for a stage. The run that waits is stopped, with your note as the reason."""
    _decide("reject", version, stage, note, open_workspace(workspace), as_json)


def _resume(
    stage: Annotated[str | None, typer.Argument(metavar="[STAGE]", help="The stage that is held.")] = None,
    named: Annotated[str | None, typer.Option("--stage", help="The same, as other commands take it.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lift the hold that a rollback put on a stage; runs that wait for it go on."""
    from stageway.errors import ConfigError
    from stageway.pipelines.board import status
    from stageway.pipelines.decisions import resume as lift
    from stageway.pipelines.runner import Runner

    opened, stage = open_workspace(workspace), stage or named
    if stage is None:
        raise ConfigError(f"stageway resume: which stage? one of {', '.join(opened.spec.stages)}")
    with opened_store(opened) as store:
        hold, woken = lift(store, opened, stage)
        if not as_json:
            typer.echo(f"{stage} is not held any more" if hold is not None else f"{stage} was not held")
        if woken and not status(opened, store).workers:
            with told() as tell:
                for run in woken:
                    Runner(opened, store).work(run_id=run.number, on_event=tell)
        after = [found for run in woken if (found := store.runs.get(run.number)) is not None]
    if as_json:
        print_json({"hold": hold, "runs": after})
    else:
        for run in after:
            typer.echo(says(run))


approve = single("approve", _approve, epilog='Example: [bold]stageway approve diabetes:2 --note "looks right"[/bold]')
reject = single("reject", _reject, epilog='Example: [bold]stageway reject diabetes:2 --note "drifts"[/bold]')
resume = single("resume", _resume, epilog="Example: [bold]stageway resume prod[/bold]")
