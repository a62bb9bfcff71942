"""The description of a service as Swagger 2.0, in the shape that v1's clients and code generators know."""

from __future__ import annotations

from typing import Any, Optional

from stageway.contract import Schema
from stageway.serving.scorer import Scorer
from stageway.serving.settings import Settings

KEPT = ("enum", "minItems", "maxItems", "format", "example")
FORMATS = {"integer": "int64", "number": "double"}


def document(settings: Settings, scorer: Scorer) -> "dict[str, Any]":
    """Return the whole document; an undeclared request is any object, an undeclared reply anything."""
    if scorer.declared is not None:
        given, returned = _valid(scorer.declared["input"]), _valid(scorer.declared["output"])
    else:
        given, returned = _schema(scorer.contract.request) or {"type": "object"}, _schema(scorer.contract.response)
    name = settings.service_name
    return {
        "swagger": "2.0",
        "info": {
            "title": name,
            "description": "API specification for Azure Machine Learning {}".format(name),
            "version": settings.service_version,
        },
        "schemes": ["https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {
            "Bearer": {
                "type": "apiKey",
                "name": "Authorization",
                "in": "header",
                "description": "For example: Bearer abc123",
            }
        },
        "paths": {
            "/": {
                "get": {
                    "operationId": "ServiceHealthCheck",
                    "description": "Simple health check endpoint to ensure the service is up at any given point.",
                    "responses": {
                        "200": {
                            "description": "If service is up and running, this response will be returned with the "
                            "content 'Healthy'",
                            "schema": {"type": "string"},
                            "examples": {"application/json": "Healthy"},
                        },
                        "default": _failure(),
                    },
                }
            },
            "/score": {
                "post": {
                    "operationId": "RunMLService",
                    "description": "Run web service's model and get the prediction output",
                    "security": [{"Bearer": []}],
                    "parameters": [
                        {
                            "name": "serviceInputPayload",
                            "in": "body",
                            "description": "The input payload for executing the real-time machine learning service.",
                            "schema": {"$ref": "#/definitions/ServiceInput"},
                        }
                    ],
                    "responses": {
                        "200": {
                            "description": "The service processed the input correctly and provided a result "
                            "prediction, if applicable.",
                            "schema": {"$ref": "#/definitions/ServiceOutput"},
                        },
                        "default": _failure(),
                    },
                }
            },
        },
        "definitions": {
            "ServiceInput": given,
            "ServiceOutput": returned,
            "ErrorResponse": {
                "type": "object",
                "properties": {
                    "status_code": {"type": "integer", "format": "int32"},
                    "message": {"type": "string"},
                },
            },
        },
    }


def _failure() -> "dict[str, Any]":
    return {
        "description": "The service failed to execute due to an error.",
        "schema": {"$ref": "#/definitions/ErrorResponse"},
    }


def _valid(schema: Any) -> Any:
    """Return a declared schema without what the decorators write and Swagger forbids: that nothing is required."""
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key != "required" or value}
    if isinstance(found.get("items"), dict):
        found["items"] = _valid(found["items"])
    if isinstance(found.get("properties"), dict):
        found["properties"] = {name: _valid(inner) for name, inner in found["properties"].items()}
    return found


def _schema(schema: Optional[Schema]) -> Schema:
    """Write a contract's schema in what Swagger 2.0 has: one type, arrays with items, no null."""
    if not schema:
        return {}
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds or ())
    named = [kind for kind in kinds if kind != "null"]
    found: Schema = {key: schema[key] for key in KEPT if key in schema}
    if len(named) == 1:
        found["type"] = named[0]
        if named[0] in FORMATS:
            found.setdefault("format", FORMATS[named[0]])
    if "null" in kinds:
        found["x-nullable"] = True
    if found.get("type") == "array":
        found["items"] = _schema(schema.get("items"))
    if "properties" in schema:
        found["properties"] = {name: _schema(inner) for name, inner in schema["properties"].items()}
        if schema.get("required"):
            found["required"] = list(schema["required"])
    return found
