"""Commands that start and check a project: init, demo, doctor, schema, lock, exec."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stageway.cli.common import JsonOption, WorkspaceOption, open_workspace, print_json, print_table, single


def _init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the project and of its model.")],
    folder: Annotated[Path | None, typer.Option(help="Where to put it; default: ./NAME.", show_default=False)] = None,
    template: Annotated[str, typer.Option(help="Which template to render.")] = "sklearn",
    answers: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE: answer a question of the template, such as owner=my-github-name."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start a project from a template: training, entry script, pipeline, samples, tests and CI files."""
    from stageway import scaffold

    given = dict(_pair(one) for one in answers or [])
    made = scaffold.init(name, folder or Path(name), template=template, answers=given)
    if as_json:
        print_json(made)
    else:
        typer.echo(f"{made.folder} is ready ({len(made.files)} files); `cd {made.folder}` and read its README.md")


def _pair(text: str) -> tuple[str, str]:
    from stageway.errors import ConfigError

    key, mark, value = text.partition("=")
    if not key or not mark:
        raise ConfigError(f"--set {text!r}: write KEY=VALUE, such as owner=my-github-name")
    return key, value


def _demo(
    folder: Annotated[Path, typer.Option(help="Folder of the demo's own project.")] = Path("stageway-demo"),
) -> None:
    """Train four versions of a model and watch the pipeline take, replace, stop and refuse them. Nothing is simulated.

    The services go on running until `stageway down --workspace FOLDER`.
    """
    from stageway import demo

    demo.run(folder, on_terminal=sys.stdout.isatty())


def _doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Say what this machine can do (Docker, Kubernetes, registry, disk, versions), and what would supply the rest."""
    from stageway.doctor import examine
    from stageway.errors import ConfigError

    try:
        opened = open_workspace(workspace)
    except ConfigError:
        if workspace is not None:
            raise
        opened = None  # outside a project the machine itself can still be examined
    findings = examine(opened)
    if as_json:
        print_json(findings)
        return
    print_table(
        ["", "what", "says"],
        [
            [
                "ok" if one.ok else "--",
                one.name,
                one.says + (f"; {one.supplies}" if one.supplies and not one.ok else ""),
            ]
            for one in findings
        ],
    )


schema_app = typer.Typer(no_args_is_help=True, help="Print the JSON Schema of stageway.yml, or check a file.")


@schema_app.command("print", epilog="Example: [bold]stageway schema print > stageway.schema.json[/bold]")
def _schema_print() -> None:
    """Print the JSON Schema of stageway.yml, with the installed plug-ins' options."""
    from stageway.config.schema import json_schema

    print_json(json_schema())


@schema_app.command("check", epilog="Example: [bold]stageway schema check stageway.yml[/bold]")
def _schema_check(
    file: Annotated[Path, typer.Argument(help="The file to check.")] = Path("stageway.yml"),
    as_json: JsonOption = False,
) -> None:
    """Check a stageway.yml: every mistake with line and column."""
    from stageway.config.schema import check

    check(file)
    if as_json:
        print_json({"file": str(file), "ok": True})
    else:
        typer.echo(f"{file}: ok")


def _lock(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Resolve what serving needs into stageway.lock; commit it.

    Serving's own packages are resolved together with yours, so that a conflict shows here and not in production.
    """
    from stageway.images import lock as locks

    opened = open_workspace(workspace)
    path = locks.resolve(opened)
    if as_json:
        print_json({"lock": str(path)})
    else:
        typer.echo(f"{path} is current")


def _exec(context: typer.Context, workspace: WorkspaceOption = None) -> None:
    """Run a command with exactly the packages that serving uses, so that training and serving agree."""
    from stageway import images
    from stageway.errors import ConfigError

    command = list(context.args)
    if not command:
        raise ConfigError("stageway exec: nothing to run; write `stageway exec -- python train.py`")
    opened = open_workspace(workspace)
    place = images.environment(opened)
    if command[0] in ("python", "python3"):
        command[0] = place.argv[0]
    environ = {**os.environ, **place.env}
    environ.pop("VIRTUAL_ENV", None)
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 - the user's own command line
    except OSError as error:
        raise ConfigError(f"stageway exec: {command[0]!r} cannot be run: {error.strerror}") from error


init = single("init", _init, epilog="Example: [bold]stageway init my-model[/bold]")
demo = single("demo", _demo, epilog="Example: [bold]stageway demo --folder /tmp/demo[/bold]")
doctor = single("doctor", _doctor, epilog="Example: [bold]stageway doctor --json[/bold]")
schema = schema_app
lock = single("lock", _lock, epilog="Example: [bold]stageway lock && git add stageway.lock[/bold]")
exec_ = single(
    "exec",
    _exec,
    epilog="Example: [bold]stageway exec -- python train.py[/bold]",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
