"""Every task as a command, made from its signature: the same inputs as its GitHub action and Azure step.

A task alone reads the dossier that the task before left, or starts from a version; it writes the grown dossier back.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from stageway.cli.common import JsonOption, WorkspaceOption, open_workspace, print_json, single, who

if TYPE_CHECKING:
    from collections.abc import Callable

    from stageway.ci.inputs import Input
    from stageway.config.workspace import Workspace
    from stageway.dossier import Dossier

EXAMPLES = {
    "register": "stageway register outputs/model --metrics outputs/metrics.json --samples outputs/samples",
    "profile": "stageway profile diabetes:2 --budget 10s",
    "package": "stageway package diabetes:2 --dossier dossier.json",
    "deploy": "stageway deploy --dossier dossier.json --stage dev",
    "smoke-test": "stageway smoke-test --dossier dossier.json --stage dev",
    "promote": "stageway promote --dossier dossier.json --to prod",
    "rollback": "stageway rollback --stage prod",
}

DossierOption = Annotated[
    Path | None, typer.Option("--dossier", help="The JSON file that travels between tasks: read, grown, written back.")
]
VersionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[VERSION]", help="NAME, NAME:VERSION or NAME@ALIAS to start from, when there is no dossier yet."
    ),
]


def command(name: str) -> typer.Typer:
    """Return the command of the task *name*."""
    from stageway import plugins

    return single(name, _wrapper(name, plugins.load("task", name)), epilog=_epilog(name))


def _epilog(name: str) -> str | None:
    return f"Example: [bold]{EXAMPLES[name]}[/bold]" if name in EXAMPLES else None


def _wrapper(name: str, task: Callable[..., Dossier]) -> Any:
    from stageway.ci.inputs import FROM_NOTHING, inputs

    defaults = {key: parameter.default for key, parameter in inspect.signature(task).parameters.items()}

    def run(**given: Any) -> None:
        workspace = open_workspace(given.pop("workspace"))
        as_json, path, version = given.pop("as_json"), given.pop("dossier"), given.pop("version", None)
        if "by" in given and given["by"] is None:
            given["by"] = who()
        dossier = task(_start(name, workspace, path, version), workspace, **given)
        if path is not None:
            dossier.write(path)
        _remember(workspace, dossier)
        _outputs(dossier, path, given.get("stage") or given.get("to"), sys.stderr if as_json else sys.stdout)
        if as_json:
            print_json(dossier)
        else:
            typer.echo(_sentence(name, dossier, given))

    parameters = [_parameter(one.parameter, _annotation(one), defaults[one.parameter]) for one in inputs(name, task)]
    if name not in FROM_NOTHING:
        parameters.insert(0, _parameter("version", VersionArgument, None))
    parameters += [
        _parameter("dossier", DossierOption, None),
        _parameter("workspace", WorkspaceOption, None),
        _parameter("as_json", JsonOption, False),
    ]
    run.__doc__ = inspect.getdoc(task)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotation(one: Input) -> Any:
    """Turn an input into what typer reads."""
    if not one.flag:
        return Annotated[one.hint, typer.Argument(help=one.help, show_default=False)]
    # Only the positive word of a flag: "--no-again" would say nothing.
    return Annotated[one.hint, typer.Option(one.flag, help=one.help, show_default=one.default not in (None, "false"))]


def _start(name: str, workspace: Workspace, path: Path | None, version: str | None) -> Dossier:
    from stageway.ci.inputs import FROM_NOTHING
    from stageway.dossier import Dossier
    from stageway.errors import ConfigError

    if path is not None and (path.exists() or (version is None and name not in FROM_NOTHING)):
        dossier = Dossier.read(path)
        if version is None or dossier.model is None or version == dossier.model.label:
            return dossier
        raise ConfigError(f"{path}: is about {dossier.model.label}, not {version}; name another file")
    if version is not None:
        from stageway.tasks.base import known

        return known(workspace, version)
    if name in FROM_NOTHING:
        return Dossier(pipeline=workspace.spec.name)
    raise ConfigError(f"stageway {name}: nothing to start from; give NAME:VERSION or --dossier FILE")


def _remember(workspace: Workspace, dossier: Dossier) -> None:
    """Keep a release and its evidence in the store, so that the next task may start from the version alone."""
    if dossier.release is None:
        return
    from stageway import store

    with store.open(workspace) as opened:
        opened.releases.put(dossier.release)
        opened.evidence.put(*(one for one in dossier.evidence if one.release == dossier.release.id))


def _outputs(dossier: Dossier, path: Path | None, stage: str | None, stream: TextIO) -> None:
    """Set the step outputs of the CI system around us, if there is one; *stage* is the one that the task worked on."""
    from stageway.ci.outputs import emit

    outputs: dict[str, str] = {}
    if dossier.model is not None:
        outputs |= {"model": dossier.model.id.name, "version": dossier.model.id.version}
    if dossier.release is not None:
        outputs["release"] = dossier.release.id
    if stage is not None:
        outputs["stage"] = stage
        for one in dossier.deployments:
            if one.stage == stage:
                outputs["endpoint"] = one.endpoint
    if path is not None:
        outputs["dossier"] = str(path)
    emit(outputs, stream=stream)


def _sentence(name: str, dossier: Dossier, given: dict[str, Any]) -> str:
    """Say in one line what the task left."""
    label = dossier.model.label if dossier.model is not None else "nothing"
    stage = given.get("stage") or given.get("to")
    if stage is not None:
        for one in dossier.deployments:
            if one.stage == stage:
                done = "is proven in" if name == "smoke-test" else "answers in"
                return f"{label} ({one.release}) {done} {stage}: {one.endpoint}"
    if name == "profile" and dossier.profile is not None:
        return f"{label}: {dossier.profile.sentence()}"
    if name == "package" and dossier.release is not None:
        return f"{label} is release {dossier.release.id}"
    if name == "register" and dossier.model is not None:
        return f"{label} ({dossier.model.digest[:19]}…, {dossier.model.size:,} bytes)"
    return f"{name}: {label} done"
