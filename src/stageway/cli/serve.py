"""``stageway serve``: a model at the developer's desk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stageway.cli.common import JsonOption, WorkspaceOption, single

if TYPE_CHECKING:
    from stageway.desk.desk import Ready, Told

SCORING, CLIENTS = "Scoring", "Clients and logs"

EPILOG = (
    "Example: [bold]stageway serve model.joblib[/bold]\n\n"
    "Example: [bold]stageway serve --entry-script score.py --reload[/bold]\n\n"
    "Example: [bold]stageway serve diabetes:3 --port 0[/bold]"
)


def _serve(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL or PATH",
            help="NAME, NAME:VERSION or NAME@ALIAS of the project's registry, or a model file or folder; "
            "several for one entry script; default: the project's own model and script.",
            show_default=False,
        ),
    ] = None,
    entry_script: Annotated[
        Path | None, typer.Option(help="File with init() and run(data).", show_default=False)
    ] = None,
    framework: Annotated[
        str | None,
        typer.Option(help="Serve the model's files without a script, such as ScikitLearn.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", help="Port to serve on; 0 takes a free one.")] = 5001,
    reload: Annotated[bool, typer.Option("--reload", help="Load anew when script, folder or model change.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.", rich_help_panel=SCORING)] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Calls of run() at once in one worker.", rich_help_panel=SCORING)
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds from a request to its reply, then 504.", rich_help_panel=SCORING),
    ] = None,
    queue_wait: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds that run() may be waited for, then 503.", rich_help_panel=SCORING),
    ] = None,
    batching: Annotated[
        Literal["auto", "on", "off"] | None, typer.Option(help="Join requests that wait.", rich_help_panel=SCORING)
    ] = None,
    max_body: Annotated[
        int | None, typer.Option(min=1, help="Bytes of the largest request.", rich_help_panel=SCORING)
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin that browsers may call from, or *; repeatable.", rich_help_panel=CLIENTS),
    ] = None,
    auth: Annotated[
        Path | None, typer.Option(help="File of `stageway keys make`; requests need a key.", rich_help_panel=CLIENTS)
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate with its chain (PEM).", rich_help_panel=CLIENTS)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=CLIENTS)] = None,
    log_format: Annotated[
        Literal["text", "json"] | None, typer.Option(help="Lines of text, or of JSON.", rich_help_panel=CLIENTS)
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request.", rich_help_panel=CLIENTS)] = (
        False
    ),
    collect: Annotated[
        Path | None, typer.Option(help="Folder to keep inputs and outputs in.", rich_help_panel=CLIENTS)
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a model here, with the packages of this Python environment, until Ctrl-C. No project is needed.

    The service is the one that goes into images: /score, /swagger.json, /metrics, and /docs to try it in a browser.
    """
    from stageway.desk.choice import choose
    from stageway.desk.desk import Where, serve

    numbers = {"workers": workers, "concurrency": concurrency, "timeout": timeout, "queue-wait": queue_wait}
    paths = {"auth": auth, "tls-certificate": tls_certificate, "tls-key": tls_key, "collect": collect}
    given = {
        **numbers,
        "batching": batching,
        "max-body": max_body,
        "log-format": log_format,
        **{name: path.absolute() for name, path in paths.items() if path is not None},
    }
    arguments = [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]
    arguments += [part for origin in cors or () for part in ("--cors", origin)]
    arguments += ["--access-log"] if access_log else []
    where = Where(host, port, guarded=auth is not None, secure=tls_certificate is not None)
    first, more = (what[0], what[1:]) if what else (None, [])
    choice = choose(first, *more, script=entry_script, framework=framework, start=workspace)
    if sys.stderr.isatty():
        typer.secho(f"starting {choice.said} ...", dim=True, err=True)
    unwatched = (collect.resolve(),) if collect is not None else ()
    serve(choice, where, arguments, _told(as_json), reload=reload, unwatched=unwatched)
    if not as_json:
        typer.echo("stopped", err=True)


def _told(as_json: bool) -> Told:
    from stageway.desk.desk import Told

    def ready(at: Ready) -> None:
        if as_json:
            import json

            from stageway.cli.common import plain

            typer.echo(json.dumps(plain(at)))
        else:
            _banner(at)

    def log(line: str) -> None:
        typer.echo(line, err=True)

    def reloaded(cause: str) -> None:
        typer.echo(f"{typer.style('reloaded:', fg='green')} {cause}", err=True)

    def refused(cause: str, why: str) -> None:
        mark = typer.style("not reloaded:", fg="red")
        typer.echo(f"{mark} {cause}, but {why}; the service goes on as it was", err=True)

    return Told(ready, log, reloaded, refused)


def _banner(at: Ready) -> None:
    bold = {"bold": True} if sys.stdout.isatty() else {}
    typer.echo(f"{typer.style(at.serves, **bold)} is served on {typer.style(at.address, fg='cyan')}")
    rows = {
        "try it": at.try_it,
        "": at.hint,
        "docs": at.docs,
        "reload": at.reloads_on and f"when {at.reloads_on} changes",
    }
    for name, text in {**rows, "stop": "Ctrl-C"}.items():
        if text:
            typer.echo(f"  {typer.style(name.ljust(7), dim=True)} {text}")


serve = single("serve", _serve, epilog=EPILOG)
