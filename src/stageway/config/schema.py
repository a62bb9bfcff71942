"""The JSON Schema of ``stageway.yml``, for editors and for reviews without Stageway.

Made from the same types that the loader uses, with the options of the plug-ins that are installed. A copy with the
built-in ones is in ``schemas/``; ``python -m stageway.ci.render`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from stageway import plugins
from stageway.config.loader import load_pipeline
from stageway.specs import PipelineSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

NAMED = ("properties", "patternProperties", "$defs")
BOUNDS = ("gt", "ge", "lt", "le")
"""Pydantic's own words for limits of what is written as text; JSON Schema has no such keywords."""

Schema = dict[str, Any]


def check(path: Path) -> PipelineSpec:
    """Read *path* as a run would. Raises ``ConfigError`` with every mistake."""
    return load_pipeline(path)


def json_schema(*, only: str | None = None) -> Schema:
    """Return the schema with the installed plug-ins, or with those of the distribution *only*."""
    options = {kind: _options(kind, only) for kind in ("gate", "trigger")}
    models: list[type[BaseModel]] = [PipelineSpec, *(one for found in options.values() for one in found.values())]
    places, whole = models_json_schema([(one, "validation") for one in dict.fromkeys(models)], by_alias=True)
    parts: dict[str, Schema] = whole["$defs"]
    top = parts.pop(_name(places[PipelineSpec, "validation"]))
    for kind, part in (("gate", "GateSpec"), ("trigger", "TriggerSpec")):
        bare = [name for name, model in options[kind].items() if _works_bare(model)]
        full = {name: places[model, "validation"] for name, model in options[kind].items()}
        parts[part] = _line(f"the name of a {kind}, or NAME: with its options", bare, full)
    parts["StageSpec"]["properties"]["target"] = {
        "description": "kind of place",
        "enum": _installed("target", only),
        "default": "local",
    }
    top["oneOf"] = [{"required": ["model"]}, {"required": ["models"]}]
    top["properties"]["models"]["minItems"] = 1
    top["properties"]["stages"]["minProperties"] = 1
    top["properties"]["stages"]["additionalProperties"] = False
    return {"$schema": DIALECT, "title": "stageway.yml", **_plain({**top, "$defs": parts})}


def _installed(kind: str, only: str | None) -> list[str]:
    return [
        name
        for name, point in plugins.found(kind).items()
        if only is None or (point.dist is not None and point.dist.name == only)
    ]


def _options(kind: str, only: str | None) -> dict[str, type[BaseModel]]:
    return {name: plugins.load(kind, name).Options for name in _installed(kind, only)}


def _works_bare(model: type[BaseModel]) -> bool:
    """Say whether a line may be the name alone."""
    try:
        model.model_validate({})
    except ValidationError:
        return False
    return True


def _line(description: str, bare: Sequence[str], full: Mapping[str, Any]) -> Schema:
    """Return the schema of ``NAME`` or ``{NAME: options}``."""
    mapping: Schema = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {
            name: {"anyOf": [schema, {"type": "null"}]} if name in bare else schema for name, schema in full.items()
        },
    }
    return {"description": description, "anyOf": [{"enum": list(bare)}, mapping] if bare else [mapping]}


def _name(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _plain(value: Any) -> Any:
    """Write pydantic's schema as a person would: without what only repeats names, and with what editors understand."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept: Schema = {
        key: {name: _plain(part) for name, part in one.items()} if key in NAMED else _plain(one)
        for key, one in value.items()
        if key not in ("title", *BOUNDS)
    }
    default = kept.get("default", "")
    # A default that would be written otherwise (a duration's seconds) helps nobody.
    if (
        default is None
        or isinstance(default, dict | list)
        or (kept.get("type") == "string" and not isinstance(default, str))
    ):
        kept.pop("default", None)
    if "pattern" in kept:
        kept["pattern"] = kept["pattern"].replace("?P<number>", "").replace("?P<unit>", "")
    if "description" in kept:
        kept["description"] = kept["description"].replace("``", "`")
    match kept.get("anyOf"):
        case [{"type": str(kind)} as one, {"type": "null"}] if "enum" not in one:
            del kept["anyOf"]
            kept |= one | {"type": [kind, "null"]}
    return kept
