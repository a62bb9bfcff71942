"""The ``stageway`` command. Only ``main`` ends the program.

Commands are a table of names; a command's module is imported when the command is used, so that ``--help`` costs no
more than typer itself.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from stageway import __version__
from stageway.errors import EXIT_BUG, EXIT_INTERRUPTED, StagewayError

START = "Start a project"
TASKS = "Tasks: one step each, alone or in any CI"
PIPELINE = "Pipelines and releases"
PLACES = "Models and services"

COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": (START, "Start a project from a template.", "project:init"),
    "demo": (START, "Watch four versions travel from training to production on this machine.", "project:demo"),
    "doctor": (START, "Say what this machine can do, and what would supply the rest.", "project:doctor"),
    "schema": (START, "Print the JSON Schema of stageway.yml, or check a file.", "project:schema"),
    "lock": (START, "Resolve the dependencies into stageway.lock.", "project:lock"),
    "exec": (START, "Run a command with the packages that serving uses.", "project:exec_"),
    "serve": (START, "Serve a model at your desk; with --reload while you write its script.", "serve:serve"),
    "plan": (PIPELINE, "Say what a run of a version would do, and what stands in its way.", "runs:plan"),
    "run": (PIPELINE, "Take one version through the pipeline.", "runs:run"),
    "watch": (PIPELINE, "Read new versions into the ledger and start their runs.", "runs:watch"),
    "up": (PIPELINE, "Watch and work until stopped; start services that should run.", "runs:up"),
    "worker": (PIPELINE, "Work on runs until stopped.", "runs:worker"),
    "status": (PIPELINE, "Show what each stage holds, and what goes on or waits.", "runs:status"),
    "explain": (PIPELINE, "Say why a version is where it is, and who can move it.", "runs:explain"),
    "releases": (PIPELINE, "List releases and where they have been.", "runs:releases"),
    "approve": (PIPELINE, "Approve a version for a stage.", "decisions:approve"),
    "reject": (PIPELINE, "Reject a version for a stage.", "decisions:reject"),
    "resume": (PIPELINE, "Lift the hold of a stage.", "decisions:resume"),
    "logs": (PLACES, "Show the log of a stage's service, or of a run.", "places:logs"),
    "down": (PLACES, "Stop this workspace's local services and their keeper.", "places:down"),
    "model": (PLACES, "List, show, download and delete registered versions.", "places:model"),
    "keys": (PLACES, "Make and rotate the keys and tokens of a service.", "keys:keys"),
    "plugins": (PLACES, "List the installed tasks, targets, triggers, gates and registries.", "places:plugins_"),
}

TASK_HELP: dict[str, str] = {
    "register": "Register a model file or folder as a new version.",
    "profile": "Measure the service on its samples and recommend CPU and memory.",
    "package": "Build the release: the immutable bundle that moves between stages.",
    "deploy": "Place a release in a stage.",
    "smoke-test": "Compare a stage's replies with the expected ones.",
    "promote": "Move a proven release to the next stage if its gates agree.",
    "rollback": "Put the last good release back into a stage, and hold it there.",
}


class LazyCommand(TyperCommand):
    """Stands in a help list for a command whose module is not imported yet."""

    def __init__(self, name: str, panel: str, help: str, load: Any) -> None:
        super().__init__(name=name, help=help, rich_help_panel=panel, rich_markup_mode="rich")
        self._load = load

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        return self._load().make_context(info_name, args, parent=parent, **extra)


def _built_in(place: str) -> Any:
    module, _, name = place.partition(":")
    return typer.main.get_command(getattr(import_module(f"stageway.cli.{module}"), name))


def _task(name: str) -> Any:
    from stageway.cli.tasks import command

    return typer.main.get_command(command(name))


class Commands(TyperGroup):
    """The table above, then every installed task, ours and others'."""

    def list_commands(self, ctx: Any) -> list[str]:
        from stageway import plugins

        start = [name for name, (panel, _, _) in COMMANDS.items() if panel == START]
        rest = [name for name in COMMANDS if name not in start]
        tasks = [*TASK_HELP, *(name for name in plugins.names("task") if name not in TASK_HELP)]
        return start + tasks + rest

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS:
            panel, text, place = COMMANDS[cmd_name]
            return LazyCommand(cmd_name, panel, text, lambda: _built_in(place))
        if cmd_name in TASK_HELP:
            return LazyCommand(cmd_name, TASKS, TASK_HELP[cmd_name], lambda: _task(cmd_name))
        from stageway import plugins

        if cmd_name in plugins.names("task"):
            distribution = plugins.found("task")[cmd_name].dist
            origin = distribution.name if distribution is not None else "elsewhere"
            return LazyCommand(cmd_name, TASKS, f"Task from {origin}.", lambda: _task(cmd_name))
        return None


app = typer.Typer(
    name="stageway",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]stageway demo[/bold]; then [bold]stageway init my-model[/bold]. "
    "Every command has examples under --help.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stageway {__version__}")
        raise typer.Exit


@app.callback()
def _stageway(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Takes every new version of a machine-learning model from the registry to production."""


def main() -> None:
    """Run the command and end the program with the exit code of what happened."""
    try:
        code = app(prog_name="stageway", standalone_mode=False)
    except StagewayError as error:
        sys.exit(_say(error))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last line of defence: what comes here is our bug
        # Typer's own errors are click's, which it carries in a private package in some versions.
        sys.exit(_say_usage(error) if hasattr(error, "format_message") else _report(error))
    if code == EXIT_INTERRUPTED:
        typer.echo("interrupted; the same command again goes on from here", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _say_usage(error: Any) -> int:
    """Say what is wrong with the command line, as typer does; return the exit code."""
    from typer import rich_utils

    if "--json" in sys.argv:
        import json

        typer.echo(json.dumps({"error": error.format_message(), "detail": "", "exit_code": error.exit_code}))
    rich_utils.rich_format_error(error)
    return int(error.exit_code)


def _say(error: StagewayError) -> int:
    """Print *error* for people (and as JSON for machines that asked for it); return the exit code."""
    if "--json" in sys.argv:
        import json

        typer.echo(json.dumps({"error": error.message, "detail": error.detail, "exit_code": error.exit_code}))
    word = {3: "try again", 4: "waiting"}.get(error.exit_code, "error")
    typer.echo(f"{typer.style(word + ':', fg='red' if error.exit_code < 3 else 'yellow')} {error.message}", err=True)
    if error.detail:
        typer.echo("\n".join("  " + row for row in error.detail.rstrip().splitlines()), err=True)
    return error.exit_code


def _report(error: Exception) -> int:
    """Write what a bug report needs into a file and name it; the traceback itself is for us, not for the terminal."""
    import platform
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="stageway-bug-", suffix=".txt", delete=False) as file:
        file.write(f"stageway {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        file.write(f"command: {' '.join(sys.argv[1:2])}\n\n")
        file.write("".join(traceback.format_exception(error)))
    typer.echo(
        f"bug: {type(error).__name__}: {error}\nThis is ours, not yours; please send {file.name} with the report",
        err=True,
    )
    return EXIT_BUG
