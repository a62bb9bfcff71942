"""What answers ``/score``: an entry script, or a framework that needs none. Both keep this contract."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Mapping, Optional, Protocol
from urllib.parse import parse_qsl

from stageway.contract import Contract
from stageway.errors import StagewayError

OURS = ("stageway.serving", "importlib._bootstrap", "importlib._bootstrap_external")


class StartError(StagewayError):
    """The service cannot start; the message is the sentence that the log ends with."""

    exit_code = 1


class ScoringError(StagewayError):
    """``run`` raised: the client learns no more than that, the log has the traceback."""


@dataclass(frozen=True)
class Call:
    """One request to ``/score``."""

    method: str
    body: bytes
    query: str
    content_type: str
    headers: Callable[[], Mapping[str, str]]

    def query_values(self) -> "dict[str, Any]":
        """Return the query's parameters, read as JSON where that is what they are; a repeated one is a list."""
        found: "dict[str, list[Any]]" = {}
        for name, text in parse_qsl(self.query, keep_blank_values=True):
            found.setdefault(name, []).append(_value(text))
        return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


class Scorer(Protocol):
    """Loaded by its constructor, on a worker's main thread; the two methods are called on its prediction thread."""

    contract: Contract
    """What it declares; its source is ``none`` where it declares nothing."""
    declared: "Optional[dict[str, Any]]"
    """The same as Swagger schemas with examples, ``{"input": ..., "output": ...}``, where there are decorators."""

    def start(self) -> None:
        """Get ready to score; ``StartError`` ends the service."""

    def score(self, call: Call) -> Any:
        """Return what JSON is to be made of; ``BadRequestError`` if the client is wrong, ``ScoringError`` if we are."""


def log_traceback(error: BaseException) -> None:
    """Write a traceback to stderr that starts in the user's code, not in ours."""
    inner: Optional[TracebackType] = error.__traceback__
    while inner is not None and inner.tb_frame.f_globals.get("__name__", "").startswith(OURS):
        inner = inner.tb_next
    traceback.print_exception(type(error), error, inner, file=sys.stderr)
    sys.stderr.flush()


def said(error: BaseException) -> str:
    """Return an exception in one line."""
    lines = str(error).strip().splitlines()
    return "{}: {}".format(type(error).__name__, lines[0][:300]) if lines else type(error).__name__


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
