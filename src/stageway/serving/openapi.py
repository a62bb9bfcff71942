"""The description of a service as OpenAPI 3.1 and 3.0, and the paths under which it and Swagger 2.0 are found.

Only what this service really answers is in it: its paths come from the route table, its limits from the settings.
"""

from __future__ import annotations

from typing import Any, Mapping
from urllib.parse import parse_qsl, quote

import orjson

from stageway.serving import describe_v2, replies, schemas, script_tensors, swagger, v2
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.schemas import Dialect
from stageway.serving.scorer import Scorer
from stageway.serving.settings import Settings

READING = ("GET", "HEAD")
JSON, TEXT = "application/json", "text/plain"
NEWEST = "3.1"
DESCRIBED = ("get", "post")
"""Methods that are described; HEAD is a GET without a body, OPTIONS says which methods there are."""
FAILURES = {
    400: "The request does not fit; the message says where.",
    401: "No key or token, or not a valid one.",
    404: "There is no such version of the description.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the service takes.",
    415: "The content type, or the content encoding, is not one that the service takes.",
    431: "A request id is longer than 100 characters.",
    500: "The model's code raised an error, took too long, or returned what cannot be written.",
    503: "The service is busy, or not ready; try again later.",
    504: "The reply took longer than the service's limit.",
}


def routes(settings: Settings, scorer: Scorer, table: "Mapping[str, Route]") -> "dict[str, Route]":
    """Return the table of the descriptions of *table*, which is read when somebody asks for one."""
    found: "dict[str, Route]" = {}
    written: "dict[str, Reply]" = {}

    def described(version: str) -> Reply:
        # Written when somebody asks for it; that is seldom.
        if version not in written:
            made = swagger.document(settings, scorer)
            if version in schemas.DIALECTS:
                made = document(settings, scorer, table, version)
            written[version] = Reply(200, orjson.dumps(made, option=orjson.OPT_NON_STR_KEYS))
        return written[version]

    def chosen(scope: Any) -> Reply:
        version = dict(parse_qsl(scope.query_string, keep_blank_values=True)).get("version", "2")
        if version not in ("2", "2.0", *schemas.DIALECTS):
            return replies.message(
                404, "there is no version {!r} of the description; ask for 2, 3 or 3.1".format(version)
            )
        return described(version)

    found["/swagger.json"] = Route(READING, page=chosen)
    found["/openapi.json"] = Route(READING, page=lambda scope: described(NEWEST))
    return found


def document(settings: Settings, scorer: Scorer, table: "Mapping[str, Route]", version: str) -> "dict[str, Any]":
    """Return the whole document in the *version* that was asked for, one of ``schemas.DIALECTS``."""
    number, dialect = schemas.DIALECTS[version]
    writer = Writer(settings, scorer, dialect)
    paths = {}
    for path, route in table.items():
        operations = writer.operations(path)
        kept = {name: one for name, one in operations.items() if name.upper() in route.methods}
        for operation in kept.values():
            writer.finish(operation, route)
        if kept:
            paths[quote(path)] = kept
    made: "dict[str, Any]" = {
        "openapi": number,
        "info": {
            "title": settings.service_name,
            "version": settings.service_version,
            "description": _about(settings),
        },
        "servers": [{"url": settings.prefix or "/"}],
        "paths": paths,
        "components": {"schemas": writer.schemas()},
    }
    if settings.auth:
        described = "A key of the service, or a token that its owner issued."
        made["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": described}
        }
    return made


def _about(settings: Settings) -> str:
    model = "the model {}".format(settings.model) if settings.model else "a model"
    return "Scores requests with {}.".format(model)


class Writer:
    """Writes operations in one dialect of schemas."""

    def __init__(self, settings: Settings, scorer: Scorer, dialect: Dialect) -> None:
        self._settings, self._scorer, self._dialect = settings, scorer, dialect
        self._raw = bool(getattr(scorer, "raw", False))
        self._declared = scorer.declared or {}
        self._model = v2.identity(settings)
        self._request = schemas.declared(scorer.contract.request, self._declared.get("input"))
        returned = self._declared.get("output") or {}
        table = str(returned.get("format", "")).startswith(script_tensors.TABLE)
        self._response = schemas.with_null(schemas.declared(scorer.contract.response, returned), table=table)

    def operations(self, path: str) -> "dict[str, Any]":
        """Return the operations of *path*, ``{"get": ..., "post": ...}``, without what all have; none if unknown."""
        if path == "/score":
            return {"post": self._post(), "get": self._get()}
        if path.startswith(v2.ROOT):
            return describe_v2.operations(path, self._model, self._scorer.signature)
        if path not in PAGES:
            return {}
        name, summary, kind, schema, failures = PAGES[path]
        page: "dict[str, Any]" = _operation(name, summary, {kind: {"schema": dict(schema)}}, failures)
        if path == "/swagger.json":
            version = {"type": "string", "enum": ["2", "2.0", *schemas.DIALECTS]}
            page["parameters"] = [{"name": "version", "in": "query", "schema": version}]
        return {"get": page}

    def finish(self, operation: "dict[str, Any]", route: Route) -> None:
        """Add what a route makes of an operation: who may call it, and how it fails."""
        failures = set(operation.pop("failures")) | {431}
        if route.read is not None:
            failures |= {400, 500, 503} | ({504} if self._settings.timeout else set())
        if route.read is not None and "requestBody" in operation:
            failures |= {413, 415} | ({408} if self._settings.body_timeout else set())
        if route.guarded and self._settings.auth:
            failures |= {401}
            operation["security"] = [{"bearer": []}]
        form = operation.pop("failure", "Failure")
        content = {JSON: {"schema": {"$ref": "#/components/schemas/" + form}}}
        for status in sorted(failures):
            operation["responses"].setdefault(str(status), {"description": FAILURES[status], "content": content})

    def schemas(self) -> "dict[str, Any]":
        """Return the named schemas that operations refer to."""
        found = {"ServiceInput": self._request, "ServiceOutput": self._response, "Failure": FAILURE}
        found.update(describe_v2.SCHEMAS)
        return {name: self._dialect(schema) for name, schema in found.items()}

    def _post(self) -> "dict[str, Any]":
        operation = self._scoring("score", "Score the data of the body.")
        content: "dict[str, Any]" = {JSON: {"schema": self._body()}}
        if self._raw:
            content = {"*/*": {}}
        operation["requestBody"] = {"content": content, "required": bool(self._scorer.contract.request)}
        return operation

    def _body(self) -> "dict[str, Any]":
        whole = {"$ref": "#/components/schemas/ServiceInput"}
        records = getattr(self._scorer, "records", None)
        if records is None:
            return whole
        rows = (self._request.get("properties") or {}).get(records) or {"type": "array"}
        if (rows.get("items") or {}).get("type") != "object":
            names = [str(name) for name in getattr(self._scorer, "names", ())]
            rows = {
                "type": "array",
                "items": {"type": "object", "properties": {name: {} for name in names}, "required": names},
            }
        # Power BI and others send the rows of the one table alone.
        return self._dialect({"anyOf": [whole, {**rows, "minItems": 1}]})

    def _get(self) -> "dict[str, Any]":
        operation = self._scoring("score-query", "Score the parameters of the query, each JSON or else text.")
        known, needed = self._request.get("properties"), self._request.get("required") or ()
        if known:
            operation["parameters"] = [
                {
                    "name": name,
                    "in": "query",
                    "required": name in needed,
                    "content": {JSON: {"schema": self._dialect(schema)}},
                }
                for name, schema in known.items()
            ]
        else:
            anything = {"type": "object", "additionalProperties": True}
            operation["parameters"] = [
                {"name": "values", "in": "query", "style": "form", "explode": True, "schema": anything}
            ]
        return operation

    def _scoring(self, name: str, summary: str) -> "dict[str, Any]":
        content: "dict[str, Any]" = {JSON: {"schema": {"$ref": "#/components/schemas/ServiceOutput"}}}
        operation = _operation(name, summary, {"*/*": {}} if self._raw else content, ())
        operation["responses"]["200"]["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()
        }
        if self._raw:
            operation["responses"]["default"] = {
                "description": "Whatever else the entry script answers.",
                "content": {"*/*": {}},
            }
        return operation


def _operation(name: str, summary: str, content: "dict[str, Any]", failures: "tuple[int, ...]") -> "dict[str, Any]":
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "Done.", "content": content}},
        "failures": failures,
    }


HEADERS = {
    "x-request-id": "The request's own, or one that was made for it.",
    "x-ms-request-id": "The same, or what the client said.",
    "x-ms-run-function-failed": "True when the entry script raised an error.",
    "x-ms-run-fn-exec-ms": "Milliseconds that scoring took.",
}
ANYTHING: "dict[str, Any]" = {"type": "object"}
FAILURE = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
WORDS = {"type": "string"}
PAGES: "dict[str, tuple[str, str, str, dict[str, Any], tuple[int, ...]]]" = {
    "/": ("health", "Whether the service is up: the text Healthy.", TEXT, WORDS, (503,)),
    "/livez": ("live", "Whether the service is alive.", TEXT, WORDS, (503,)),
    "/readyz": ("ready", "Whether the service takes requests.", TEXT, WORDS, (503,)),
    "/metrics": ("metrics", "Counters and times, for Prometheus.", TEXT, WORDS, (404,)),
    "/swagger.json": ("swagger", "This description, as Swagger 2.0 or OpenAPI.", JSON, ANYTHING, (404,)),
    "/openapi.json": ("openapi", "This description, as OpenAPI 3.1.", JSON, ANYTHING, ()),
    "/contract.json": ("contract", "The schemas of requests and replies, and who declared them.", JSON, ANYTHING, ()),
    "/docs": ("docs", "A page to try a request.", "text/html", WORDS, ()),
}
"""Path to the id of its operation, what it is, what it replies, and how it may fail."""
