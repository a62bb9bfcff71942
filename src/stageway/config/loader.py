"""Read ``stageway.yml`` into a ``PipelineSpec``; all that is wrong with it is said at once, with line and column.

Nothing heavy is imported: a gate or trigger is loaded for its ``Options``, a target is looked up by name only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stageway import plugins
from stageway.config.complaints import complaints, nearest
from stageway.config.document import Document, Loc, Problem, read
from stageway.config.paths import check_paths
from stageway.errors import ConfigError
from stageway.specs import GateSpec, PipelineSpec, TriggerSpec

M = TypeVar("M", bound=BaseModel)


def load_pipeline(path: Path) -> PipelineSpec:
    """Return what the file *path* says. Raises ``ConfigError`` with the first problem; its detail has the others."""
    document = read(path)
    if document.unread:
        raise document.error(document.problems)
    if not isinstance(document.value, dict):
        raise document.error([document.problem((), "should be a mapping of keys such as model: and stages:")])
    problems = document.problems
    options = _take_options(document, problems)
    spec = _validate(document, PipelineSpec, document.value, (), problems)
    problems += _unknown_targets(document)
    if spec is not None:
        problems += [document.problem(loc, text) for loc, text in check_paths(spec, path.absolute().parent)]
    if problems or spec is None:
        raise document.error(problems)
    return _with_options(spec, options)


def _validate(document: Document, model: type[M], value: Any, at: Loc, problems: list[Problem]) -> M | None:
    """Return *value* as *model*, or ``None`` after adding what is wrong to *problems*.

    Strict: ``yes`` is no number and ``3`` no text. By way of JSON, where a list may still become a tuple or a set.
    """
    try:
        return model.model_validate_json(
            json.dumps(value), strict=True, context={"written": True}, by_alias=True, by_name=False
        )
    except ValidationError as error:
        problems += complaints(document, error, model, at)
        return None


def _take_options(document: Document, problems: list[Problem]) -> dict[Loc, BaseModel]:
    """Replace each line of ``gates`` and ``triggers`` by its name; return the options by the place of the line."""
    options: dict[Loc, BaseModel] = {}
    places: list[tuple[str, Loc, dict[str, Any], str]] = []
    document.value.setdefault("triggers", [one.name for one in PipelineSpec.model_fields["triggers"].default])
    places.append(("trigger", ("triggers",), document.value, "triggers"))
    stages = document.value.get("stages")
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        if isinstance(stage, dict) and "gates" in stage:
            places.append(("gate", ("stages", name, "gates"), stage, "gates"))
    for kind, at, holder, key in places:
        if not isinstance(holder[key], list):
            problems.append(document.problem(at, f"{document.written(at)} should be a list of {kind}s"))
            holder[key] = []
        for index, line in enumerate(holder[key]):
            name, found = _line(document, kind, line, (*at, index), problems)
            holder[key][index] = {"name": name}
            if found is not None:
                options[*at, index] = found
    return options


def _line(document: Document, kind: str, line: Any, at: Loc, problems: list[Problem]) -> tuple[str, BaseModel | None]:
    """Read ``name`` or ``{name: options}``."""
    if isinstance(line, str):
        name, value, inside = line, None, at
    elif isinstance(line, dict) and len(line) == 1:
        [(name, value)] = line.items()
        inside = (*at, name)
    else:
        problems.append(document.problem(at, f"{document.written(at)} should be NAME, or one NAME: with its options"))
        return "", None
    if name not in plugins.names(kind):
        text = f"no {kind} is called {name!r}; {_installed(kind, name)}"
        problems.append(document.problem(inside, text, at_key=inside != at))
        return name, None
    try:
        model = plugins.load(kind, name).Options
    except ConfigError as error:
        problems.append(document.problem(inside, error.message, at_key=inside != at))
        return name, None
    except AttributeError:
        text = f"the {kind} {name!r} has no Options; update what installed it"
        problems.append(document.problem(inside, text, at_key=inside != at))
        return name, None
    return name, _validate(document, model, {} if value is None else value, inside, problems)


def _unknown_targets(document: Document) -> list[Problem]:
    known = plugins.names("target")
    stages = document.value.get("stages")
    problems: list[Problem] = []
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        target = stage.get("target") if isinstance(stage, dict) else None
        if isinstance(target, str) and target not in known:
            text = f"no target is called {target!r}; {_installed('target', target)}"
            problems.append(document.problem(("stages", name, "target"), text))
    return problems


def _installed(kind: str, name: str) -> str:
    known = plugins.names(kind)
    close = nearest(name, known)
    listed = f"installed: {', '.join(known) or 'none'}"
    return f"{close} {listed}" if close.startswith("did") else listed


def _with_options(spec: PipelineSpec, options: dict[Loc, BaseModel]) -> PipelineSpec:
    stages = {
        name: stage.model_copy(
            update={
                "gates": tuple(
                    GateSpec(name=gate.name, options=options[("stages", name, "gates", index)])
                    for index, gate in enumerate(stage.gates)
                )
            }
        )
        for name, stage in spec.stages.items()
    }
    triggers = tuple(
        TriggerSpec(name=trigger.name, options=options["triggers", index])
        for index, trigger in enumerate(spec.triggers)
    )
    return spec.model_copy(update={"stages": stages, "triggers": triggers})
