"""Options and printing that commands share. Nothing heavy is imported here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stageway.config.workspace import Workspace

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="Folder of the project; default: found from here upwards.",
        envvar="STAGEWAY_WORKSPACE",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def single(name: str, command: Any, **settings: Any) -> typer.Typer:
    """Return a typer program of the one *command*."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False)
    settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
    app.command(name, **settings)(command)
    return app


def open_workspace(folder: Path | None) -> Workspace:
    from stageway.config.workspace import Workspace

    return Workspace.open(folder)


def plain(value: Any) -> Any:
    """Return *value* (facts, dataclasses, mappings, sequences of them) as what JSON can say."""
    from dataclasses import fields, is_dataclass

    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def print_json(value: Any) -> None:
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_table(headers: list[str], rows: list[list[str]]) -> None:
    """Print a table: rich on a terminal, aligned plain text elsewhere (one row a line, never wrapped)."""
    if sys.stdout.isatty():
        from rich.box import SIMPLE
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(*headers, box=SIMPLE)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[at]) for row in [headers, *rows]) for at in range(len(headers))]
    for row in [headers, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ago(at: int | None) -> str:
    """Say a time (ms since 1970) as how long ago it was."""
    import time

    if at is None:
        return "-"
    seconds = max(0, int(time.time() - at / 1000))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def who() -> str:
    """Name the person at this terminal for records: the git e-mail if there is one, else the login."""
    import getpass
    import subprocess

    try:
        found = subprocess.run(["git", "config", "user.email"], capture_output=True, text=True, timeout=5)
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
