"""The contract that a version declares beside its code: its signature, else what its samples with replies say.

An entry script's own decorators go before both; only the started service knows those.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from stageway.contract import Contract, Schema, infer
from stageway.release import Model
from stageway.samples import Sample

REPLIES = {"ScikitLearn": "predict", "XGBoost": "predict", "LightGBM": "predict", "MLflow": "predictions"}
"""Where a framework that serves without an entry script puts what its model returns."""


def declared(model: Model, samples: Sequence[Sample], framework: str | None = None) -> Contract | None:
    """Return the declared contract, or ``None`` when there is neither a signature nor a sample with its reply.

    *framework* is what serves where there is no entry script: a signature that says what its model returns is then a
    part of the reply, or of less use than what the served model says of itself.
    """
    if model.signature is not None:
        signature = _replied(Contract.from_json(model.signature), framework)
        if signature.request is not None or signature.response is not None:
            source = "samples" if signature.source == "samples" else "signature"
            return Contract(signature.request, signature.response, source)
    answered = [sample for sample in samples if sample.has_expected]
    if not answered:
        return None
    request = common(infer(sample.request_json) for sample in answered)
    response = common(infer(sample.expected) for sample in answered)
    return Contract(request, response, "samples")


def _replied(signature: Contract, framework: str | None) -> Contract:
    response = signature.response
    if framework is None or response is None or response.get("type") == "object" or signature.source == "samples":
        return signature
    if framework not in REPLIES:
        return Contract()
    name = REPLIES[framework]
    reply = {"type": "object", "properties": {name: response}, "required": [name]}
    return Contract(signature.request, reply, signature.source)


def common(schemas: Iterable[Schema]) -> Schema:
    """Return what all *schemas* agree on: a value of any of them is a value of the result."""
    return functools.reduce(_both, schemas)


def _both(one: Schema, other: Schema) -> Schema:
    if one == other:
        return one
    if one.get("type") != other.get("type") or "type" not in one:
        return {}
    found: dict[str, Any] = {"type": one["type"]}
    if one["type"] == "array":
        items = _both(one.get("items", {}), other.get("items", {})) if "items" in one and "items" in other else {}
        if items:
            found["items"] = items
        found |= {key: one[key] for key in ("minItems", "maxItems") if key in one and one.get(key) == other.get(key)}
    if one["type"] == "object":
        mine, theirs = one.get("properties", {}), other.get("properties", {})
        found["properties"] = {
            name: _both(mine.get(name, theirs.get(name)), theirs.get(name, mine.get(name)))
            for name in sorted({*mine, *theirs})
        }
        found["required"] = sorted({*one.get("required", ())} & {*other.get("required", ())})
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]
