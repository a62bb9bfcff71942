"""What a run does, told while it does it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from stageway.pipelines.runner import RunEvent

GOOD = ("done", "ended")
ENDINGS = (*GOOD, "refused", "failed")


@contextmanager
def told(lines_of_json: bool = False, *, endings: bool = False) -> Iterator[Callable[[RunEvent], None]]:
    """Tell what a run does while it does it, on standard error: a moving line on a terminal, plain lines elsewhere.

    With *lines_of_json* each event is one line of JSON on standard output. *endings* tells how runs end, too, which a
    command that carries one run prints as its result.
    """
    if lines_of_json:

        def json_line(event: RunEvent) -> None:
            said = {"kind": event.kind, "run": event.run.number, "version": event.run.label, "task": event.task}
            typer.echo(json.dumps(said | {"stage": event.stage, "text": event.text, "seconds": event.seconds}))

        yield json_line
        return
    if not sys.stderr.isatty():

        def plain(event: RunEvent) -> None:
            if event.kind != "task" and (endings or event.kind != "ended"):
                # Not output.note: while a task runs, notes come from here.
                took = f" ({event.seconds:.1f} s)" if event.kind in ENDINGS else ""
                typer.echo(_line(event, "done") + took, err=True)

        yield plain
        return
    from rich.console import Console
    from rich.markup import escape

    from stageway import output

    console = Console(stderr=True)
    with console.status("…") as status:

        def live(event: RunEvent) -> None:
            if event.kind in ENDINGS:
                if endings or event.kind != "ended":
                    mark = "[green]✓[/]" if event.kind in GOOD else "[red]✗[/]"
                    took = f" [dim]{event.seconds:.1f} s[/]"
                    console.print(f"{mark} {escape(_line(event))}{took}", highlight=False, soft_wrap=True)
            else:
                status.update(escape(_line(event)))

        with output.notes_to(lambda text: status.update(escape(text))):
            yield live


def _line(event: RunEvent, done: str = "") -> str:
    """Say an event in one line; *done* is the word for a task that is done."""
    if event.kind == "ended":
        return f"{event.run.label}: {event.text}"
    where = f"{event.task} {event.stage}".rstrip()
    text = done if event.kind == "done" else event.text
    return f"{event.run.label}  {where}" + (f": {text}" if where and text else text)
