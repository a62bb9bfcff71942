"""MLflow's ``MLmodel`` file: which framework it names, and its signature as a contract and back.

A signature says less than a contract (it knows no limits outside tensors), so a file that Stageway writes carries the
whole contract in its metadata too. A signature that another tool wrote describes the model's input, not a request: it
is read as the body that a service without an entry script takes, ``{"data": ...}``, and as a bare reply.

Reads and writes YAML and JSON only; nothing here imports MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stageway.contract import Contract, Schema
from stageway.errors import ConfigError

NAME = "MLmodel"
METADATA = "stageway.contract"

_FRAMEWORKS = {
    "sklearn": ("ScikitLearn", "sklearn_version"),
    "onnx": ("Onnx", "onnx_version"),
    "tensorflow": ("TensorFlow", "tf_version"),
    "xgboost": ("XGBoost", "xgb_version"),
    "lightgbm": ("LightGBM", "lgb_version"),
}
_WITH_A_SCRIPT = {"keras": ("TfKeras", "keras_version"), "pytorch": ("PyTorch", "pytorch_version")}
"""Files of these flavors are served by MLflow's Python function, or else by an entry script."""
_FUNCTION = "python_function"
_TO_COLUMN = {"number": "double", "integer": "long", "string": "string", "boolean": "boolean"}
_FROM_COLUMN = {"double": "number", "float": "number", "long": "integer", "integer": "integer", "boolean": "boolean"}
_FROM_COLUMN |= {"string": "string", "binary": "string", "datetime": "string"}
_TO_TENSOR = {"number": "float64", "integer": "int64", "boolean": "bool"}


@dataclass(frozen=True)
class MLmodel:
    """What a version's ``MLmodel`` says of it; ``None`` where it says nothing."""

    framework: str | None = None
    framework_version: str | None = None
    signature: Contract | None = None


def read(text: str, where: str = NAME) -> MLmodel:
    """Read the file's text. Raises ``ConfigError`` when it is not an MLmodel."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict) or not isinstance(value.get("flavors"), dict):
        raise ConfigError(f"{where}: has no flavors, so it is not an MLmodel; rename it, or save the model again")
    framework, version = _framework(value["flavors"], value.get("mlflow_version"))
    exact = (value.get("metadata") or {}).get(METADATA)
    if isinstance(exact, Mapping):
        return MLmodel(framework, version, Contract.from_json(exact))
    try:
        return MLmodel(framework, version, to_contract(value.get("signature") or {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: signature: cannot be read: {error}; save the model again") from error


def _framework(flavors: Mapping[str, Any], mlflow_version: Any) -> tuple[str | None, str | None]:
    """Return the framework and its version: of the flavor that can be served as it is, else of what MLflow runs."""
    for flavor, (name, key) in _FRAMEWORKS.items():
        # MLflow's TensorFlow saves models of Keras in a form that is no SavedModel.
        if flavor in flavors and (flavors[flavor] or {}).get("model_type") != "keras":
            return name, _said(flavors[flavor], key)
    if _FUNCTION in flavors:
        return "MLflow", str(mlflow_version) if mlflow_version is not None else None
    for flavor, (name, key) in _WITH_A_SCRIPT.items():
        if flavor in flavors:
            return name, _said(flavors[flavor], key)
    return None, None


def _said(flavor: Mapping[str, Any] | None, key: str) -> str | None:
    said = (flavor or {}).get(key)
    return str(said) if said is not None else None


def in_folder(folder: Path) -> MLmodel | None:
    """Read the ``MLmodel`` at the top of *folder*, if *folder* is one in MLflow's format."""
    path = folder / NAME
    try:
        return read(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def to_signature(contract: Contract) -> dict[str, str | None]:
    """Return the two sides as JSON texts of MLflow's schemas; ``None`` for a side that they cannot say."""
    sides = {"inputs": contract.request, "outputs": contract.response}
    found = {name: _columns(schema) if schema else None for name, schema in sides.items()}
    return {name: json.dumps(columns) if columns else None for name, columns in found.items()}


def to_contract(signature: Mapping[str, Any]) -> Contract | None:
    """Read MLflow's signature, a mapping of ``inputs`` and ``outputs`` to JSON texts."""
    inputs, outputs = (json.loads(signature.get(side) or "null") for side in ("inputs", "outputs"))
    if not inputs and not outputs:
        return None
    request: Schema | None = None
    if inputs:
        request = {"type": "object", "properties": {"data": _rows(inputs)}, "required": ["data"]}
    return Contract(request, _rows(outputs) if outputs else None, "signature")


def _columns(schema: Schema) -> list[dict[str, Any]] | None:
    if schema.get("type") != "object":
        column = _tensor(schema) or _type(schema)
        return [column] if column is not None else None
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    required = set(schema.get("required") or ())
    tensors = {name: _tensor(one) for name, one in properties.items()}
    if all(tensors.values()) and required == set(properties):
        return [{"name": name, **tensor} for name, tensor in tensors.items() if tensor is not None]
    types = {name: _type(one) or {"type": "any"} for name, one in properties.items()}
    return [{"name": name, **one, "required": name in required} for name, one in types.items()]


def _tensor(schema: Schema) -> dict[str, Any] | None:
    """Say arrays of numbers as a tensor, whose shape keeps the lengths that are fixed."""
    shape: list[int] = []
    while schema.get("type") == "array":
        length = schema.get("minItems")
        shape.append(length if isinstance(length, int) and length == schema.get("maxItems") else -1)
        schema = schema.get("items") or {}
    kind = schema.get("type")
    if not shape or not isinstance(kind, str) or kind not in _TO_TENSOR:
        return None
    return {"type": "tensor", "tensor-spec": {"dtype": _TO_TENSOR[kind], "shape": shape}}


def _type(schema: Schema) -> dict[str, Any] | None:
    kind = schema.get("type")
    if kind == "array":
        items = _type(schema.get("items") or {})
        return {"type": "array", "items": items} if items is not None else None
    if kind == "object":
        required = set(schema.get("required") or ())
        types = {name: _type(one) for name, one in (schema.get("properties") or {}).items()}
        if not types or None in types.values():
            return None
        return {
            "type": "object",
            "properties": {name: {**one, "required": name in required} for name, one in types.items() if one},
        }
    return {"type": _TO_COLUMN[kind]} if isinstance(kind, str) and kind in _TO_COLUMN else None


def _rows(columns: Sequence[Mapping[str, Any]]) -> Schema:
    """Say what several rows of *columns* are as JSON: what a model takes or gives is always a batch."""
    first = columns[0]
    if len(columns) == 1 and first["type"] == "tensor":
        spec = first["tensor-spec"]
        return _nested(list(spec["shape"]), str(spec["dtype"]))
    kinds = [_value(one) for one in columns]
    if len(kinds) == 1 and first.get("name") is None:
        return {"type": "array", "items": kinds[0]}
    row: Schema = {"type": "array", "minItems": len(kinds), "maxItems": len(kinds)}
    if all(one == kinds[0] for one in kinds):
        row["items"] = kinds[0]
    else:
        row["prefixItems"] = kinds
    return {"type": "array", "items": row}


def _nested(shape: list[int], dtype: str) -> Schema:
    if shape:
        inner: Schema = {"type": "array", "items": _nested(shape[1:], dtype)}
        return inner if shape[0] < 0 else {**inner, "minItems": shape[0], "maxItems": shape[0]}
    if dtype.startswith(("int", "uint")):
        return {"type": "integer"}
    if dtype.startswith("float"):
        return {"type": "number"}
    if dtype.startswith("bool"):
        return {"type": "boolean"}
    return {"type": "string"} if dtype.startswith(("str", "<U", "object")) else {}


def _value(column: Mapping[str, Any]) -> Schema:
    kind = column["type"]
    if kind == "tensor":
        spec = column["tensor-spec"]
        return _nested(list(spec["shape"])[1:], str(spec["dtype"]))
    if kind == "array":
        return {"type": "array", "items": _value(column["items"])}
    if kind == "object":
        properties = {name: _value(one) for name, one in column["properties"].items()}
        needed = sorted(name for name, one in column["properties"].items() if one.get("required", True))
        return {"type": "object", "properties": properties, "required": needed}
    return {"type": _FROM_COLUMN[kind]} if kind in _FROM_COLUMN else {}
