"""What is served at the desk: the model, its entry script or framework, and what the project says beside it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stageway.bundle import ModelPlace
from stageway.config.workspace import FILE, Workspace, find
from stageway.contract import Contract
from stageway.errors import ConfigError, RegistryError
from stageway.output import note
from stageway.registries import mlmodel
from stageway.registries.base import Registry
from stageway.release import Model, check_model_name
from stageway.serving.frameworks import FRAMEWORKS
from stageway.tasks.base import open_registry

ENDINGS = {
    ".joblib": "ScikitLearn",
    ".pickle": "ScikitLearn",
    ".pkl": "ScikitLearn",
    ".sav": "ScikitLearn",
    ".skops": "ScikitLearn",
    ".onnx": "Onnx",
    ".ort": "Onnx",
    ".pt": "TorchScript",
    ".pth": "TorchScript",
    ".torchscript": "TorchScript",
    ".bst": "XGBoost",
    ".ubj": "XGBoost",
    ".xgb": "XGBoost",
    ".lgb": "LightGBM",
}
"""Which framework reads a model file, by its ending; other files need ``--framework``."""

SAVED_MODEL = "saved_model.pb"
NAMED = "name the framework with --framework, or serve it with --entry-script"


@dataclass(frozen=True)
class Chosen:
    """One model and where its files are: in the registry, or on disk as *path*."""

    place: ModelPlace
    path: Path | None = None
    model: Model | None = None

    @property
    def said(self) -> str:
        return self.place.label if self.path is None else str(self.path)


@dataclass(frozen=True)
class Choice:
    """Exactly one of *script* and *framework* is set.

    *directory* holds the script, and its files are put into the app root: below *inside* where that is a name, and
    the script *alone* where the project ships nothing else.
    """

    models: tuple[Chosen, ...] = ()
    script: Path | None = None
    framework: str | None = None
    directory: Path | None = None
    inside: str = ""
    alone: bool = False
    contract: Contract | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    samples: Path | None = None
    workspace: Workspace | None = None

    @property
    def said(self) -> str:
        """Say in one phrase what is served."""
        with_what = self.script.name if self.script is not None else str(self.framework)
        models = " and ".join(one.said for one in self.models)
        return f"{models} with {with_what}" if models else with_what


def choose(
    what: str | None,
    *more: str,
    script: Path | None,
    framework: str | None,
    start: Path | None = None,
) -> Choice:
    """Say what is served: *what* is a path or a model's reference, nothing is the project's own.

    With *more* of them a script has to be named, which gets all. Raises ``ConfigError`` in one line with the way out
    when that cannot be known.
    """
    if script is not None and framework is not None:
        raise ConfigError("--entry-script and --framework: give one of them; a framework needs no script")
    if script is not None and script.is_dir():
        raise ConfigError(
            f"--entry-script {str(script)!r}: is a folder; name the script in it, such as {script}/score.py"
        )
    if script is not None and not script.is_file():
        raise ConfigError(f"--entry-script {str(script)!r}: no such file in {Path.cwd()}")
    if what is not None and more:
        return _of_several([what, *more], script, start)
    if what is not None and _is_path(what):
        return _of_path(Path(what), script, framework, start)
    workspace = _workspace(start, needed=what is not None or script is None, what=what)
    if workspace is None:
        return Choice(script=script, directory=script.parent if script is not None else None)
    return _of_project(workspace, what, script, framework)


def _of_several(whats: Sequence[str], script: Path | None, start: Path | None) -> Choice:
    if script is None:
        raise ConfigError(f"models {', '.join(whats)}: name the script that uses them all with --entry-script")
    found = [choose(one, script=script, framework=None, start=start) for one in whats]
    models = tuple(model for one in found for model in one.models)
    names = [model.place.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"model {name!r}: is given twice, and a script finds models by their names; rename one")
    workspace = next((one.workspace for one in found if one.workspace is not None), None)
    return Choice(models, script=script, directory=script.parent, workspace=workspace)


def _is_path(what: str) -> bool:
    """Say whether *what* is meant as a path: it is there, or it looks like one."""
    if Path(what).exists():
        return True
    suffix = Path(what).suffix.lower()
    if suffix == ".py":
        raise ConfigError(f"model {what!r}: no such file in {Path.cwd()}; a script is named with --entry-script")
    if os.sep in what or what.startswith((".", "~")) or suffix in ENDINGS:
        raise ConfigError(f"model {what!r}: no such file or folder in {Path.cwd()}")
    return False


def _of_path(path: Path, script: Path | None, framework: str | None, start: Path | None) -> Choice:
    if path.suffix == ".py":
        raise ConfigError(f"model {str(path)!r}: is a script; `stageway serve --entry-script {path}` serves it")
    if path.is_dir() and not any(path.iterdir()):
        raise ConfigError(f"model {str(path)!r}: the folder is empty; name a folder or a file with a model in it")
    called = path.resolve()
    name = re.sub(r"[^a-zA-Z0-9._-]+", "-", called.stem if path.is_file() else called.name).strip("-.")
    chosen = Chosen(ModelPlace(name=check_model_name(name or "model"), version="1"), path)
    if script is not None:
        return Choice((chosen,), script=script, directory=script.parent)
    known = mlmodel.in_folder(path) if path.is_dir() else None
    found = framework or _guess(path, known.framework if known else None)
    if framework is None:
        _say_without_script(path, found, start)
    return Choice((chosen,), framework=found, contract=known.signature if known else None)


def _say_without_script(path: Path, framework: str, start: Path | None) -> None:
    """Say that the project's script is not used, where there is one: a path is served as it is."""
    with contextlib.suppress(ConfigError):
        workspace = Workspace.open(start)
        serve = workspace.spec.serve
        if serve.entry_script:
            script = os.path.relpath(workspace.root / (serve.source_directory or ".") / serve.entry_script)
            note(f"{path} is served as {framework}, without the project's script; add --entry-script {script} for that")


def _workspace(start: Path | None, *, needed: bool, what: str | None) -> Workspace | None:
    """Open the project, or say why one is needed; ``None`` where it is not."""
    try:
        find(start or Path(os.environ.get("STAGEWAY_WORKSPACE") or "."))
    except ConfigError as error:
        if start is None and not needed:
            return None
        if what is not None:
            raise ConfigError(
                f"model {what!r}: no such file or folder, and there is no project here ({FILE}) "
                "whose registry could have it; name a path, or go to the project"
            ) from error
        if start is None:
            raise ConfigError(
                f"stageway serve: what? name a model file, or --entry-script score.py, or go to a project ({FILE})"
            ) from error
        raise
    return Workspace.open(start)


def _of_project(workspace: Workspace, what: str | None, script: Path | None, framework: str | None) -> Choice:
    spec = workspace.spec.serve
    registry = open_registry(workspace)
    models = _models(workspace, registry, what, needed=what is not None or script is None)
    own = not what or models[0].id.name in workspace.spec.model_names
    entry = spec.entry_script if own and framework is None and script is None else None
    chosen = tuple(Chosen(ModelPlace(name=one.id.name, version=one.id.version), model=one) for one in models)
    samples = workspace.root / spec.samples if own and spec.samples else None
    variables = spec.environment_variables if own else {}
    signature = models[0].signature if len(models) == 1 else None
    contract = Contract.from_json(signature) if signature else None
    shared = Choice(chosen, contract=contract, variables=variables, samples=samples, workspace=workspace)
    if script is not None:
        return replace(shared, script=script, directory=script.parent)
    if entry is None:
        return replace(shared, framework=framework or _guess_of(models[0]))
    folder = workspace.root / (spec.source_directory or ".")
    path = folder / entry
    if not path.is_file():
        raise ConfigError(f"{workspace.file}: serve.entry-script: no such file {entry!r} in {folder}")
    inside = "" if folder.resolve() == workspace.root.resolve() else folder.resolve().name
    return replace(shared, script=path, directory=folder, inside=inside, alone=spec.source_directory is None)


def _models(workspace: Workspace, registry: Registry, what: str | None, *, needed: bool) -> list[Model]:
    if what is not None:
        return [registry.get(what)]
    try:
        return [registry.get(name) for name in workspace.spec.model_names]
    except RegistryError as error:
        if needed:
            raise ConfigError(
                f"{error.message}; register one (`stageway register PATH`), or name a model file to serve"
            ) from error
        note(f"{error.message}; serving the script without a model")
        return []


def _guess(path: Path, said: str | None) -> str:
    """Return the framework that reads *path*: as its MLmodel *said*, else by the files' names.

    Raises ``ConfigError`` where neither says it.
    """
    files = [path] if path.is_file() else [one for one in sorted(path.rglob("*")) if one.is_file()]
    found = _readable(said, [one.name for one in files])
    if found is None:
        raise ConfigError(f"model {str(path)!r}: its files do not say what reads them; {NAMED}")
    return found


def _guess_of(model: Model) -> str:
    found = _readable(model.framework, [name.rpartition("/")[2] for name in model.files])
    if found is None:
        raise ConfigError(f"model {model.label}: is registered without a framework that is served so; {NAMED}")
    return found


def _readable(said: str | None, names: list[str]) -> str | None:
    """Return what serves a model without a script; MLflow reads every model in its format."""
    if said in FRAMEWORKS:
        return said
    if mlmodel.NAME in names:
        return "MLflow"
    if SAVED_MODEL in names:
        return "TensorFlow"
    found = {ENDINGS[Path(name).suffix.lower()] for name in names if Path(name).suffix.lower() in ENDINGS}
    return found.pop() if len(found) == 1 else None
