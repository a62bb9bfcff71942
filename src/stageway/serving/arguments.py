"""From arguments, and the environment where v1 had a variable for it, to ``Settings``.

An argument wins over its variable. Times are in seconds, sizes in bytes. What cannot be is said in one line, with
exit code 2. Secrets have no argument: they come in files.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from stageway.serving.settings import Settings

LAST_PORT = 65535
ORIGIN = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#\s]+/?")
HOST = re.compile(r"^[a-z]*:?/*|/.*$")
COLLECTED = "modeldata"
"""Folder for collected data when v1's variable, which names none, is all that asks for it."""


def settings(arguments: Optional[Sequence[str]] = None, environment: Optional[Mapping[str, str]] = None) -> Settings:
    """Return what was asked for; ends the process with exit code 2 where that cannot be."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    _filled(given, _Environment(os.environ if environment is None else environment, parser))
    _checked(given, parser)
    release, version = given.pop("release"), given["model"]
    given["identity"] = [
        pair for pair in (("x-stageway-release", release), ("x-stageway-model-version", version)) if pair[1]
    ]
    return Settings(**{field.name: given[field.name] for field in fields(Settings) if field.name in given})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stageway-serving",
        description="Serve one model release over HTTP. Times are in seconds, sizes in bytes; 0 is off.",
        allow_abbrev=False,
    )

    def add(flag: str, help: str, **more: Any) -> None:
        more.setdefault("default", None)
        parser.add_argument(flag, help=help, **more)

    add("--uds", "path of the Unix socket to serve on")
    add("--host", "address to serve on (default: {})".format(Settings.host))
    add("--port", "port to serve on; 0 takes a free one (default: 0)", type=_a_port)
    add("--workers", "worker processes (default: WORKER_COUNT, else 1)", type=_positive)
    add("--control", "control file shared with whoever started this")
    add("--entry-script", "file with init() and run(data) (default: AZUREML_ENTRY_SCRIPT)")
    add("--framework", "serve the one model file without a script, such as ScikitLearn")
    add("--contract", "contract (JSON) to use where the script declares none")
    add("--accelerated", "folder with a verified ONNX form of the model, which answers in its place")
    add("--release", "id of the release, sent back with every reply", default="")
    add("--model-version", "NAME:VERSION of the model, sent back with every reply", dest="model", default="")
    # Scoring.
    add("--concurrency", "calls of run() at the same time in one worker (default: 1)", type=_positive)
    add("--batching", "join requests that wait together (default: auto)", choices=("auto", "on", "off"))
    add("--batch-rows", "most rows of one joined call (default: {})".format(Settings.batch_rows), type=_positive)
    add("--queue-wait", "longest wait for run() to begin, then 503 (default: 0)", type=_seconds)
    add("--timeout", "longest time from a request to its reply, then 504 (default: 0)", type=_seconds)
    add("--scoring-timeout", "what run() may take, then 500 (default: SCORING_TIMEOUT_MS, else 3600)", type=_some)
    # Clients.
    add("--max-body", "largest request (default: {})".format(Settings.max_body), type=_positive)
    add("--body-timeout", "how long a client may take to send its body, then 408 (default: 60)", type=_seconds)
    add("--idle-timeout", "how long a connection may take to send its next headers (default: 300)", type=_some)
    worker = "how long a worker may not react at all, then it is replaced (default: WORKER_TIMEOUT, else 300)"
    add("--worker-timeout", worker, type=_seconds)
    add("--stop-timeout", "how long a stop waits for what is in flight (default: 30)", type=_positive)
    add("--lifeline", "descriptor of a pipe; when its other end is closed, the service stops", type=_descriptor)
    add("--cors", "origin that browsers may call from, or *; repeatable (default: AML_CORS_ORIGINS)", action="append")
    add("--prefix", "path that all routes are below (default: SERVICE_PATH_PREFIX)")
    add("--docs", "serve /docs, a page to try a request", action="store_true")
    # Secrets.
    add("--auth", "JSON file with the digests of keys and the public keys of tokens; read again when it changes")
    add("--tls-certificate", "certificate, with its chain (PEM); read again when it changes")
    add("--tls-key", "private key of the certificate (PEM)")
    # Watching.
    add("--log-format", "text, or one JSON object a line (default: text)", choices=("text", "json"))
    add("--access-log", "log every request: method, path, status, milliseconds, request id", action="store_true")
    add("--telemetry", "export metrics by OTLP (default: AML_APP_INSIGHTS_ENABLED)", action="store_true")
    collected = "AML_MODEL_DC_STORAGE_ENABLED: ./{}".format(COLLECTED)
    add("--collect", "folder for collected inputs and outputs (default: none; with {})".format(collected))
    add("--collect-share", "share of the requests that is collected, 0 to 1 (default: 1)", type=_share)
    add("--collect-without", "field that is not collected; repeatable", action="append")
    add("--collect-keep", "bytes of collected data that are kept (default: 1 GiB)", type=_positive)
    return parser


def _filled(given: "dict[str, Any]", environment: "_Environment") -> None:
    """Put the variables, then the defaults, where no argument was given."""
    read = environment.read
    variables: "dict[str, Callable[[], Any]]" = {
        "workers": lambda: read("WORKER_COUNT", _positive),
        "entry_script": lambda: None if given["framework"] else read("AZUREML_ENTRY_SCRIPT", str),
        "scoring_timeout": lambda: read("SCORING_TIMEOUT_MS", _milliseconds),
        "worker_timeout": lambda: read("WORKER_TIMEOUT", _seconds),
        "cors": lambda: read("AML_CORS_ORIGINS", _listed),
        "prefix": lambda: read("SERVICE_PATH_PREFIX", str),
        "telemetry": lambda: read("AML_APP_INSIGHTS_ENABLED", _truth),
        "collect": lambda: COLLECTED if read("AML_MODEL_DC_STORAGE_ENABLED", _truth) else None,
        "service_name": lambda: read("SERVICE_NAME", str),
        "service_version": lambda: read("SERVICE_VERSION", str),
    }
    for name, variable in variables.items():
        if given.get(name) in (None, False):
            given[name] = variable()
    for name in [name for name, value in given.items() if value is None]:
        del given[name]
    prefix = given.get("prefix", "").strip("/")
    given["prefix"] = "/" + prefix if prefix else ""


def _checked(given: "dict[str, Any]", parser: argparse.ArgumentParser) -> None:
    script, framework = given.get("entry_script"), given.get("framework")
    if script and framework:
        parser.error("argument --framework: not allowed with argument --entry-script")
    if not script and not framework:
        parser.error("one of --entry-script and --framework is needed")
    if given.get("uds") and "port" in given:
        parser.error("argument --port: not allowed with argument --uds")
    for name, exists in (("contract", Path.is_file), ("accelerated", Path.is_dir)):
        if name in given and not exists(Path(given[name])):
            kind = "file" if exists is Path.is_file else "folder"
            parser.error("--{} {}: no such {}".format(name, given[name], kind))
    if bool(given.get("tls_certificate")) != bool(given.get("tls_key")):
        parser.error("--tls-certificate and --tls-key belong together; give both")
    for origin in given.get("cors", ()):
        if origin != "*" and not ORIGIN.fullmatch(origin):
            sentence = "--cors (AML_CORS_ORIGINS) {!r} is not an origin; write https://{}, or * for any"
            parser.error(sentence.format(origin, HOST.sub("", origin) or "example.com"))
    headers = (("release", "x-stageway-release"), ("model", "x-stageway-model-version"))
    for name, header in headers:
        if not (given[name].isascii() and (given[name].isprintable())):
            parser.error("{!r} cannot be sent in the header {}".format(given[name], header))


class _Environment:
    """Variables, read like arguments: what is wrong with one is said with its name."""

    def __init__(self, values: "Mapping[str, str]", parser: argparse.ArgumentParser) -> None:
        self._values, self._parser = values, parser

    def read(self, name: str, kind: "Callable[[str], Any]") -> Any:
        text = self._values.get(name, "").strip()
        if not text:
            return None
        try:
            return kind(text)
        except argparse.ArgumentTypeError as error:
            self._parser.error("environment variable {}: {}".format(name, error))


def _a_port(text: str) -> int:
    if not text.isdecimal() or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError("{!r} is not a port, 0 to {}".format(text, LAST_PORT))
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("{!r} is not a whole number from 1 on".format(text))
    return int(text)


def _descriptor(text: str) -> int:
    try:
        os.fstat(int(text))
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError("{!r} is not an open descriptor".format(text)) from None
    return int(text)


def _seconds(text: str) -> float:
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("{!r} is not a number of seconds; 0 is off".format(text))
    return number


def _some(text: str) -> float:
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("{!r} is not a number of seconds above 0".format(text))
    return number


def _milliseconds(text: str) -> float:
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("{!r} is not a number of milliseconds above 0".format(text))
    return number / 1000


def _share(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("{!r} is not a share between 0 and 1".format(text))
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _truth(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError("{!r} is neither true nor false".format(text))


def _listed(text: str) -> "list[str]":
    return [part.strip() for part in text.split(",") if part.strip()]
