"""Register a model with its metrics, or take the facts of a version that is registered already."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

from stageway.config.workspace import Workspace
from stageway.contract import Contract
from stageway.dossier import Dossier
from stageway.errors import ConfigError
from stageway.evidence import Evidence
from stageway.output import note
from stageway.registries.base import NewVersion
from stageway.registries.git import commit_of
from stageway.release import Model
from stageway.tasks.base import open_registry


def register(
    dossier: Dossier,
    workspace: Workspace,
    *,
    path: Annotated[Path | None, "file or folder that is the model"] = None,
    name: Annotated[str | None, "name of the model; default: the pipeline's"] = None,
    version: Annotated[str | None, "NAME:VERSION (or NAME@ALIAS) that is registered: take its facts"] = None,
    run_id: Annotated[str | None, "MLflow run whose artifact is the model"] = None,
    experiment: Annotated[str | None, "MLflow experiment whose best run is taken"] = None,
    best_by: Annotated[
        str | None, "metric of the best run: NAME or +NAME for the highest, -NAME for the lowest"
    ] = None,
    artifact: Annotated[str | None, "path of the model among the run's artifacts"] = None,
    metrics: Annotated[list[str] | None, "NAME=NUMBER, or a JSON file of them"] = None,
    tags: Annotated[list[str] | None, "KEY=VALUE"] = None,
    properties: Annotated[list[str] | None, "KEY=VALUE that never changes"] = None,
    description: Annotated[str | None, "what is new in this version"] = None,
    framework: Annotated[str | None, "ScikitLearn, Onnx, TensorFlow, ...; default: what the files say"] = None,
    framework_version: Annotated[str | None, "version of the framework"] = None,
    samples: Annotated[Path | None, "folder of requests and, beside them, expected replies"] = None,
    signature: Annotated[Path | None, "JSON file with the schemas request and response; default: from samples"] = None,
    again: Annotated[bool, "make a new version though one has the same bytes"] = False,
) -> Dossier:
    """Register a model from a file, a folder or an MLflow run, and note its metrics as evidence."""
    registry = open_registry(workspace)
    if version is not None:
        if path is not None or run_id is not None or experiment is not None:
            raise ConfigError(f"version {version!r}: is registered already; leave out path, run-id and experiment")
        return _knowing(dossier, registry.get(version))
    name = name or _only_model(workspace)
    commit = commit_of(path if path is not None and path.is_dir() else path.parent if path else workspace.root)
    want = NewVersion(
        name=name,
        path=path,
        run_id=run_id,
        experiment=experiment,
        best_by=best_by,
        artifact=artifact,
        framework=framework,
        framework_version=framework_version,
        metrics=read_metrics(metrics or []),
        tags=_pairs(tags or [], "tags"),
        properties=_pairs(properties or [], "properties"),
        description=description or "",
        signature=_signature(signature) if signature is not None else None,
        samples=samples,
        git_commit=commit.id if commit is not None else None,
        git_dirty=commit.dirty if commit is not None else None,
        again=again,
    )
    done = registry.register(want)
    if done.new:
        note(f"registered {done.model.label} ({done.model.size:,} bytes, {done.model.digest[:19]}…)")
    else:
        note(f"{done.model.label} has the same bytes already; --again makes another version of them")
    return _knowing(dossier, done.model)


def read_metrics(given: list[str]) -> dict[str, float]:
    """Read ``NAME=NUMBER`` and names of JSON files; later ones win. Raises ``ConfigError`` for what is no number."""
    found: dict[str, float] = {}
    for one in given:
        name, mark, text = one.rpartition("=")
        found.update(_metrics_file(Path(one)) if not mark else {name: _number(text, f"metrics {one!r}")})
    return found


def _metrics_file(path: Path) -> dict[str, float]:
    value = _json(path)
    if not isinstance(value, dict):
        raise ConfigError(f'{path}: metrics are written {{"rmse": 54.2}}')
    return {str(name): _number(number, f"{path}: {name}") for name, number in value.items()}


def _number(value: Any, where: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{where}: {value!r} is not a finite number")
    return number


def _pairs(given: list[str], what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        key, mark, value = one.partition("=")
        if not mark or not key:
            raise ConfigError(f"{what} {one!r}: write KEY=VALUE")
        found[key] = value
    return found


def _signature(path: Path) -> dict[str, Any]:
    value = _json(path)
    if not isinstance(value, dict) or not set(value) & {"request", "response"}:
        raise ConfigError(f'{path}: a signature is written {{"request": SCHEMA, "response": SCHEMA}}')
    for side in ("request", "response"):
        if not isinstance(value.get(side), (dict, type(None))):
            raise ConfigError(f"{path}: {side}: {value[side]!r} is not a JSON Schema")
    return Contract(value.get("request"), value.get("response"), "signature").to_json()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from error


def _only_model(workspace: Workspace) -> str:
    names = workspace.spec.model_names
    if len(names) > 1:
        raise ConfigError(f"name: missing, and {workspace.file.name} has several models: {', '.join(names)}")
    return names[0]


def _knowing(dossier: Dossier, model: Model) -> Dossier:
    evidence = Evidence(kind="metrics", facts=dict(model.metrics))
    return dossier.having(model=model).with_evidence(evidence)
