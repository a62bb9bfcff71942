"""Commands about pipelines: plan, run, watch, up, worker, status, explain, releases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stageway.cli.common import (
    JsonOption,
    WorkspaceOption,
    ago,
    open_workspace,
    print_json,
    print_table,
    single,
    who,
)
from stageway.cli.progress import told

if TYPE_CHECKING:
    from stageway.config.workspace import Workspace
    from stageway.store import Store
    from stageway.store.runs import Run

VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="NAME (the newest), NAME:VERSION or NAME@ALIAS.")
]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print what happens as JSON, one event a line.")]
IntervalOption = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the registry.")]
FromOption = Annotated[
    datetime | None,
    typer.Option(
        "--from",
        help="On the first look, start versions created at or after this moment (UTC) too.",
        show_default=False,
    ),
]


@contextmanager
def opened_store(workspace: Workspace) -> Iterator[Store]:
    from stageway import store

    with store.open(workspace) as opened:
        yield opened


def _plan(version: VersionArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Say what a run of a version would do, and what stands in its way. Nothing is started or changed."""
    from stageway.pipelines.plan import plan as make

    found = make(open_workspace(workspace), version)
    if as_json:
        print_json(found)
    else:
        release = f"release {found.release}" if found.release else "not packaged yet"
        typer.echo(f"{found.label} ({release})")
        typer.echo("steps: " + " → ".join(step.name for step in found.steps))
        for stage in found.stages:
            holds = f"holds {stage.holds}" if stage.holds else "is empty"
            typer.echo(f"\n{stage.stage} ({stage.target}) {holds}" + (f"; {stage.held}" if stage.held else ""))
            for condition in stage.conditions:
                typer.echo(f"  {_mark(condition.state)} {condition.text}" + _by(condition.who, condition.state))
            for sentence in stage.says:
                typer.echo(f"  · {sentence}")
            for sentence in stage.refused:
                typer.echo(f"  {_mark('closed')} {sentence}")
        if found.run is not None:
            typer.echo(f"\nrun {found.run.number} is going for it: {found.run.state}")
    if found.refused:
        raise typer.Exit(2)


def _mark(state: str) -> str:
    return {"open": "✓", "closed": "✗"}.get(state, "…")


def _by(who_can: str, state: str) -> str:
    return f" ({who_can})" if who_can and state != "open" else ""


def _run(version: VersionArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Take one version through the pipeline, and wait until it ends or waits for somebody.

    The same command again goes on where an interrupted one stopped.
    """
    from stageway.pipelines.runner import Runner

    opened = open_workspace(workspace)
    with opened_store(opened) as store:
        runner = Runner(opened, store)
        begun = runner.start(version, f"asked for by {who()}")
        with told() as tell:
            run = runner.work(run_id=begun.number, on_event=tell)
        end(store, run or begun, as_json)


def end(store: Store, run: Run, as_json: bool, *, failing: bool = True) -> None:
    """Print how a run ended (or what it waits for) and leave with its exit code, if that is to count."""
    if as_json:
        print_json(run)
    else:
        _print_detail(store, run)
        typer.echo(says(run))
    code = run.exit_code if run.state == "ended" else 4
    if code and failing:
        raise typer.Exit(code)


def says(run: Run) -> str:
    """Say in one line how a run ended, or what it waits for."""
    word = str(run.outcome) if run.state == "ended" else f"waits at {run.stage or 'its turn'}"
    reason = run.reason.removeprefix(f"{run.label} waits before {run.stage}: ")
    return f"{run.label}: {word}" + (f": {reason}" if reason else "")


def _print_detail(store: Store, run: Run, lines: int = 20) -> None:
    """Show on standard error what the task that ended a run had to show, such as the last lines of a service's log."""
    if run.state != "ended" or run.outcome == "promoted":
        return
    for task in store.runs.tasks(run.number):
        if task.state in ("refused", "failed") and task.detail:
            rows = task.detail.rstrip().splitlines()[-lines:]
            typer.echo("\n".join(f"  {row}" for row in rows), err=True)
            typer.echo(f"`stageway logs --run {run.number}` has all of it", err=True)


def _moment(given: datetime | None) -> int | None:
    return None if given is None else int(given.replace(tzinfo=given.tzinfo or UTC).timestamp() * 1000)


def _watch(
    once: Annotated[bool, typer.Option("--once", help="Look once, carry out what started, and end: for CI.")] = False,
    interval: IntervalOption = 2.0,
    from_: FromOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read new versions into the ledger and start their runs, each version once.

    On the very first look the versions that are there are recorded and not deployed. With --once the runs are carried
    out too, and the exit code is the worst of theirs; without, `stageway worker` or `stageway up` carries them out.
    """
    from stageway.pipelines.runner import Runner
    from stageway.watch.watcher import Watcher

    opened = open_workspace(workspace)
    with opened_store(opened) as store:
        watcher = Watcher(opened, store, from_=_moment(from_))
        if not once:
            watcher.loop(interval)
            return
        started = watcher.once()
        with told() as tell:
            Runner(opened, store).work(on_event=tell)
        ended = [found for run in started if (found := store.runs.get(run.number)) is not None]
    if as_json:
        print_json(ended)
    else:
        for run in ended:
            typer.echo(says(run))
        if not ended:
            typer.echo("nothing new")
    code = max((run.exit_code or (4 if run.state == "waiting" else 0) for run in ended), default=0)
    if code:
        raise typer.Exit(code)


def _up(
    interval: IntervalOption = 2.0,
    from_: FromOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonLinesOption = False,
) -> None:
    """Watch and work in one process until Ctrl-C or SIGTERM; first start the services that should run.

    Any number of these may run on one database: each version is taken once.
    """
    from stageway.watch.up import up as go

    opened = open_workspace(workspace)
    with told(as_json, endings=True) as tell:
        typer.echo(f"watching {opened.registry_identity} for {opened.spec.name}; Ctrl-C ends", err=True)
        go(opened, interval=interval, from_=_moment(from_), on_event=tell)


def _worker(workspace: WorkspaceOption = None, as_json: JsonLinesOption = False) -> None:
    """Work on runs until Ctrl-C or SIGTERM, which let the task that is going finish."""
    from stageway.watch.up import work as go

    opened = open_workspace(workspace)
    with told(as_json, endings=True) as tell:
        go(opened, on_event=tell)


def _status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show the board: what each stage holds and since when, what goes on, and what waits for whom."""
    from stageway.pipelines.board import status as look

    opened = open_workspace(workspace)
    with opened_store(opened) as store:
        found = look(opened, store)
    if as_json:
        print_json(found)
        return
    print_board(found.board)
    for run in found.runs:
        if run.state != "waiting" or all(row.stage != run.stage for row in found.board):  # else said with its stage
            typer.echo(f"run {run.number} of {run.label}: {found.doing.get(run.number, run.state)}")
    for mark in found.marks:
        if mark.problem:
            typer.echo(f"watcher ({mark.trigger}): {mark.problem}")
    if found.ledger:
        typer.echo("\nseen last")
        print_table(
            ["version", "seen", "ended", "reason"],
            [
                [
                    row.model.label,
                    ago(row.seen_at),
                    row.ended or "going",
                    row.reason or found.doing.get(row.run or 0, ""),
                ]
                for row in found.ledger
            ],
        )


def print_board(board: object) -> None:
    """Print stage × version × since × endpoint."""
    from stageway.pipelines.board import BoardRow

    rows: list[BoardRow] = list(board)  # type: ignore[call-overload]
    print_table(
        ["stage", "version", "since", "endpoint", "health", "release"],
        [
            [row.stage, row.label or "-", ago(row.since), row.endpoint or "-", row.health, row.release or "-"]
            for row in rows
        ],
    )
    for row in rows:
        for sentence in (*row.waiting, *([row.problem] if row.problem else [])):
            typer.echo(f"{row.stage}: {sentence}")


def _explain(version: VersionArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Say why a version is where it is: what happened, each unmet condition, and who can clear it."""
    from stageway.pipelines.explain import explain as make

    opened = open_workspace(workspace)
    with opened_store(opened) as store:
        found = make(opened, store, version)
    if as_json:
        print_json(found)
        return
    typer.echo(found.summary)
    for story in found.runs:
        typer.echo(f"\nrun {story.run.number}: {story.run.cause}")
        for task in story.tasks:
            took = f"{(task.ended_at - task.started_at) / 1000:.1f} s" if task.ended_at and task.started_at else ""
            name = f"{task.task} {task.stage}".rstrip()
            typer.echo(f"  {name:<20} {task.state:<9} {took:>8}" + (f"  {task.error}" if task.error else ""))
            if story is found.runs[0] and task.detail:
                typer.echo("\n".join(f"    {row}" for row in task.detail.rstrip().splitlines()[-20:]))
    if found.serves:
        typer.echo("\nserves " + ", ".join(f"{row.stage} at {row.endpoint}" for row in found.serves))
    if found.next_stage is not None:
        typer.echo(f"\nto enter {found.next_stage}")
        for condition in found.conditions:
            typer.echo(f"  {_mark(condition.state)} {condition.text}" + _by(condition.who, condition.state))
        if not found.unmet:
            typer.echo("  nothing stands in the way" + (f"; `{found.next_command}`" if found.next_command else ""))


def _releases(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List releases, newest first, and where each has been and is."""
    from stageway.pipelines.board import releases as look

    opened = open_workspace(workspace)
    with opened_store(opened) as store:
        found = look(opened, store, limit=limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ["release", "version", "made", "now in", "has been in"],
        [
            [
                row.release,
                row.label,
                ago(row.at),
                ", ".join(row.now_in) or "-",
                ", ".join(dict.fromkeys(f"{place.stage} ({place.how})" for place in row.places)) or "-",
            ]
            for row in found
        ],
    )


plan = single("plan", _plan, epilog="Example: [bold]stageway plan diabetes:2[/bold]")
run = single("run", _run, epilog="Example: [bold]stageway run diabetes:2[/bold]")
watch = single("watch", _watch, epilog="Example: [bold]stageway watch --once --json[/bold]")
up = single("up", _up, epilog="Example: [bold]stageway up --interval 10[/bold]")
worker = single("worker", _worker, epilog="Example: [bold]stageway worker[/bold]")
status = single("status", _status, epilog="Example: [bold]stageway status --json[/bold]")
explain = single("explain", _explain, epilog="Example: [bold]stageway explain diabetes:3[/bold]")
releases = single("releases", _releases, epilog="Example: [bold]stageway releases[/bold]")
