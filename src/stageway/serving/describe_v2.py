"""The description of the Open Inference Protocol's paths, for OpenAPI."""

from __future__ import annotations

from typing import Any, Optional

from stageway.serving import tensors, v2
from stageway.serving.scorer import Signature, Tensor

JSON, BINARY = "application/json", "application/octet-stream"
TENSOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": [*tensors.DTYPES]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "description": "The elements, nested or in the order of rows."},
    },
    "required": ["name", "datatype", "shape"],
}
WANTED = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
    "required": ["name"],
}
DECLARED = {**TENSOR, "properties": {name: TENSOR["properties"][name] for name in ("name", "datatype", "shape")}}  # type: ignore[index]
WORDS = {"type": "string"}


def _object(needed: "tuple[str, ...]", **properties: Any) -> "dict[str, Any]":
    return {"type": "object", "properties": properties, "required": list(needed)}


SCHEMAS: "dict[str, dict[str, Any]]" = {
    "InferenceRequest": _object(
        ("inputs",),
        id=WORDS,
        parameters={"type": "object"},
        inputs={"type": "array", "items": TENSOR, "minItems": 1},
        outputs={"type": "array", "items": WANTED},
    ),
    "InferenceResponse": _object(
        ("model_name", "model_version", "outputs"),
        model_name=WORDS,
        model_version=WORDS,
        id=WORDS,
        outputs={"type": "array", "items": TENSOR},
    ),
    "Model": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=WORDS,
        versions={"type": "array", "items": WORDS},
        platform=WORDS,
        inputs={"type": "array", "items": DECLARED},
        outputs={"type": "array", "items": DECLARED},
    ),
    "Server": _object(
        ("name", "version", "extensions"), name=WORDS, version=WORDS, extensions={"type": "array", "items": WORDS}
    ),
    "Live": _object(("live",), live={"type": "boolean"}),
    "Ready": _object(("ready",), ready={"type": "boolean"}),
    "InferenceFailure": _object(("error",), error=WORDS),
}


def operations(path: str, model: "tuple[str, str]", signature: Optional[Signature]) -> "dict[str, Any]":
    """Return the operations of one of the paths of ``v2.routes``; a model without tensors has nothing to infer."""
    name = "v2" + path[len(v2.ROOT) :].replace("/", "-")
    if path.endswith("/infer"):
        return {} if signature is None else {"post": _infer(name, signature)}
    known = {v2.ROOT: ("Server", "The name of the server."), v2.ROOT + "/health/live": ("Live", "Whether it is alive.")}
    default = (
        ("Model", "The inputs and outputs of the model.")
        if path in v2.paths(model)
        else ("Ready", "Whether it is ready.")
    )
    schema, summary = known.get(path, default)
    made = _operation(name, summary, {JSON: _refers(schema)})
    if schema == "Ready":
        made["responses"]["503"] = {"description": "It is not ready.", "content": {JSON: _refers(schema)}}
    return {"get": made}


def _infer(name: str, signature: Signature) -> "dict[str, Any]":
    made = _operation(name, "Score tensors.", {JSON: _refers("InferenceResponse"), BINARY: {}})
    content = {JSON: {**_refers("InferenceRequest"), "example": sample(signature)}, BINARY: {}}
    made["requestBody"] = {"required": True, "content": content}
    length = "Bytes of JSON at the head of the body, where tensors follow it as bytes."
    made["parameters"] = [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": length,
            "schema": {"type": "integer"},
        }
    ]
    return made


def _operation(name: str, summary: str, content: "dict[str, Any]") -> "dict[str, Any]":
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Open Inference Protocol"],
        "responses": {"200": {"description": "Done.", "content": content}},
        "failures": (),
        "failure": "InferenceFailure",
    }


def _refers(schema: str) -> "dict[str, Any]":
    return {"schema": {"$ref": "#/components/schemas/" + schema}}


def sample(signature: Signature) -> "dict[str, Any]":
    """Return a request of one row."""
    return {"inputs": [_sample(one) for one in signature.inputs]}


def _sample(one: Tensor) -> "dict[str, Any]":
    """Return an input of one row that the model takes."""
    shape = [1 if length < 0 else length for length in one.shape]
    value: Any = {"BOOL": False, "BYTES": ""}.get(one.datatype, 0)
    count = 1
    for length in shape:
        count *= length
    return {"name": one.name, "datatype": one.datatype, "shape": shape, "data": [value] * min(count, 1000)}
