"""``/docs``: one page to try a request in the browser, whole in itself; what it shows is data to it, never code."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any, Mapping

import orjson

from stageway.contract import describe
from stageway.serving import describe_v2, schemas, v2
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.scorer import Scorer
from stageway.serving.settings import Settings

PATH = "/docs"
PAGE = Path(__file__).with_name("docs.html")
CODE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
DECLARED_BY = {
    "decorators": "the entry script",
    "signature": "the model",
    "samples": "samples of requests and replies",
}
LINKS = {
    "/openapi.json": "OpenAPI 3.1",
    "/swagger.json": "Swagger 2.0",
    "/contract.json": "Contract",
    "/metrics": "Metrics",
}


def routes(settings: Settings, scorer: Scorer, table: "Mapping[str, Route]") -> "dict[str, Route]":
    """Return the table of the page, which is written when somebody asks for it; nothing where it is switched off."""
    if not settings.docs:
        return {}
    template = PAGE.read_text(encoding="utf-8")
    headers = [
        ("content-security-policy", _policy(template)),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ]

    def page(scope: Any) -> Reply:
        shown = orjson.dumps(about(settings, scorer, table)).decode()
        # Nothing in a script block ends it but its end tag; so none can be in the data.
        parts = {"title": html.escape(settings.service_name), "service": shown.replace("<", "\\u003c")}
        body = re.sub(r"\{(title|service)\}", lambda found: parts[found.group(1)], template)
        return Reply(200, body.encode(), "text/html; charset=utf-8", list(headers))

    return {PATH: Route(("GET", "HEAD"), page=page, counted=False)}


def about(settings: Settings, scorer: Scorer, table: "Mapping[str, Route]") -> "dict[str, Any]":
    """Return what the page shows; its paths are relative, so that they hold below any prefix."""
    raw = bool(getattr(scorer, "raw", False))
    contract = scorer.contract
    request = schemas.declared(contract.request, (scorer.declared or {}).get("input"))
    said = [("Version", settings.service_version), ("Model", settings.model)]
    release = dict(settings.identity).get("x-stageway-release", "")
    calls = [_call("/score", schemas.sample(request) or {}, raw)]
    if scorer.signature is not None:
        path = v2.paths(v2.identity(settings))[0]
        calls.append(_call(path + "/infer", describe_v2.sample(scorer.signature), raw=False))
        links = {**LINKS, path: "Open Inference Protocol"}
    else:
        links = LINKS
    return {
        "about": [pair for pair in [*said, ("Release", release)] if pair[1]],
        "auth": bool(settings.auth),
        "raw": raw,
        "contract": _in_words(scorer, raw),
        "calls": calls,
        # A link brings no key.
        "links": [
            (text, path[1:])
            for path, text in links.items()
            if path in table and not (settings.auth and table[path].guarded)
        ],
    }


def _call(path: str, sample: Any, raw: bool) -> "dict[str, Any]":
    # As text, since a browser reads 1.0 as 1.
    text = "" if raw else orjson.dumps(sample).decode()
    return {"path": path[1:], "sample": text, "json": not raw, "type": "text/plain" if raw else "application/json"}


def _in_words(scorer: Scorer, raw: bool) -> "list[tuple[str, str, str]]":
    """Return the contract as lines of a name, a schema in words and a note."""
    request, response = scorer.contract.request or {}, scorer.contract.response
    if raw:
        return [("Takes", "the request as it is", "The entry script reads it itself.")]
    needed = request.get("required") or ()
    rows = [
        ("Takes " + name, describe(schema), "" if name in needed else "may be left out")
        for name, schema in (request.get("properties") or {}).items()
    ] or [("Takes", describe(request or None), "")]
    declared_by = DECLARED_BY.get(scorer.contract.source)
    note = "As declared by {}.".format(declared_by) if declared_by else "Nobody declared a contract."
    return [*rows, ("Gives", describe(response), note)]


def _policy(page: str) -> str:
    """Return a policy under which only the code of the page itself runs, and only this service is asked."""
    digests: "dict[str, str]" = {}
    for kind, code in CODE.findall(page):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        digests[kind] = "'sha256-{}'".format(digest)
    return (
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ).format(**digests)
