"""Commands about what is registered and what runs: logs, down, model, plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stageway.cli.common import JsonOption, WorkspaceOption, ago, open_workspace, print_json, print_table, single


def _logs(
    stage: Annotated[str | None, typer.Argument(metavar="[STAGE]", help="Stage whose service's log to show.")] = None,
    named: Annotated[str | None, typer.Option("--stage", help="The same, as other commands take it.")] = None,
    run: Annotated[str | None, typer.Option(help="Show the log of this run instead.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines from the end.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show the log of a stage's service, or of a run."""
    from stageway.errors import ConfigError
    from stageway.pipelines import logs as run_logs
    from stageway.tasks.base import open_target, service_name

    opened, stage = open_workspace(workspace), stage or named
    if run is not None:
        found = run_logs.lines(opened, run, lines=lines, follow=follow)
    elif stage is None:
        raise ConfigError(f"stageway logs: which one? give a stage ({', '.join(opened.spec.stages)}) or --run ID")
    elif stage not in opened.spec.stages:
        raise ConfigError(f"no stage is called {stage!r}; stageway.yml has: {', '.join(opened.spec.stages)}")
    else:
        found = open_target(opened, stage).logs(service_name(opened, stage), lines=lines, follow=follow)
    for row in found:
        typer.echo(row)


def _down(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Stop what this workspace runs on this machine: its services and their keeper. Registry and history stay.

    `stageway up` starts again what should run.
    """
    from stageway.tasks.base import open_target

    opened = open_workspace(workspace)
    first_of = {spec.target: stage for stage, spec in reversed(opened.spec.stages.items())}
    stopped = [service for stage in first_of.values() for service in open_target(opened, stage).down()]
    if as_json:
        print_json({"stopped": stopped})
    else:
        typer.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing ran")


model_app = typer.Typer(no_args_is_help=True, help="List, show, download and delete registered versions.")


@model_app.command("list", epilog="Example: [bold]stageway model list[/bold]")
def _model_list(
    name: Annotated[str | None, typer.Argument(help="Model; default: the pipeline's.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a model's versions, newest first."""
    from stageway.tasks.base import open_registry

    opened = open_workspace(workspace)
    registry = open_registry(opened)
    wanted = [name] if name else opened.spec.model_names
    models = [registry.get(one.label) for each in wanted for one in registry.versions(each)[:limit]]
    if as_json:
        print_json(models)
        return
    aliases = {each: registry.aliases(each) for each in {one.id.name for one in models}}
    rows = [
        [
            one.label,
            ago(one.id.created),
            one.digest.removeprefix("sha256:")[:12],
            ", ".join(f"{key} {value:.4g}" for key, value in sorted(one.metrics.items())),
            ", ".join(alias for alias, at in sorted(aliases[one.id.name].items()) if at == one.id.version),
        ]
        for one in models
    ]
    print_table(["version", "since", "digest", "metrics", "aliases"], rows)


@model_app.command("show", epilog="Example: [bold]stageway model show diabetes:2 --json[/bold]")
def _model_show(
    reference: Annotated[str, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the registry knows of one version."""
    from stageway.tasks.base import open_registry

    model = open_registry(open_workspace(workspace)).get(reference)
    if as_json:
        print_json(model)
        return
    facts = model.model_dump(mode="json", exclude={"id"})
    for key, value in {"version": model.label, "registry": model.id.registry, **facts}.items():
        if value not in (None, "", {}, []):
            typer.echo(f"{key + ':':<20} {value}")


@model_app.command("download", epilog="Example: [bold]stageway model download diabetes@prod ./model[/bold]")
def _model_download(
    reference: Annotated[str, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS.")],
    into: Annotated[Path, typer.Argument(help="New folder for the files.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a version's files and verify their digest."""
    from stageway.errors import ConfigError
    from stageway.tasks.base import open_registry

    if into.exists():
        raise ConfigError(f"{into}: exists; name a new folder")
    registry = open_registry(open_workspace(workspace))
    model = registry.get(reference)
    registry.fetch(model, into)
    if as_json:
        print_json({"version": model.label, "digest": model.digest, "folder": str(into)})
    else:
        typer.echo(f"{model.label} is in {into}, {model.digest} verified")


@model_app.command("delete", epilog="Example: [bold]stageway model delete diabetes:1[/bold]")
def _model_delete(
    reference: Annotated[str, typer.Argument(metavar="VERSION", help="NAME:VERSION.")],
    force: Annotated[bool, typer.Option("--force", help="Delete a version that a stage holds too.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete one version from the registry. Releases made of it stay where they run."""
    from stageway.errors import RefusedError
    from stageway.tasks.base import open_registry

    opened = open_workspace(workspace)
    registry = open_registry(opened)
    model = registry.get(reference)
    at = registry.aliases(model.id.name)
    held = [stage for stage in opened.spec.stages if at.get(stage) == model.id.version]
    if held and not force:
        raise RefusedError(f"{model.label} is in {', '.join(held)}; move another version there first, or say --force")
    gone = registry.delete(reference)
    if as_json:
        print_json(gone)
    else:
        typer.echo(f"{gone.label} is deleted")


def _plugins(as_json: JsonOption = False) -> None:
    """List what is installed: ours and others', with the wheel each comes from."""
    from stageway import plugins

    found = [
        {"kind": kind, "name": name, "from": point.dist.name if point.dist is not None else "?", "code": point.value}
        for kind in plugins.KINDS
        for name, point in plugins.found(kind).items()
    ]
    if as_json:
        print_json(found)
    else:
        print_table(["kind", "name", "from", "code"], [list(row.values()) for row in found])


logs = single("logs", _logs, epilog="Example: [bold]stageway logs prod -f[/bold]")
down = single("down", _down, epilog="Example: [bold]stageway down --workspace stageway-demo[/bold]")
model = model_app
plugins_ = single("plugins", _plugins, epilog="Example: [bold]stageway plugins --json[/bold]")
