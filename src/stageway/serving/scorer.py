"""What answers a request: an entry script, or a framework that needs none. Both keep this contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Hashable, Mapping, Optional, Protocol, Sequence
from urllib.parse import parse_qsl

from stageway.contract import Contract
from stageway.errors import StagewayError
from stageway.serving import logs
from stageway.serving.replies import BadRequestError, Reply

OURS = ("stageway.serving", "importlib._bootstrap", "importlib._bootstrap_external")


class StartError(StagewayError):
    """The service cannot start; the message is the sentence that the log ends with."""

    exit_code = 1


class ScoringError(StagewayError):
    """``run`` raised: the client learns no more than that, the log has the traceback."""


class Call:
    """One request as it came in, its body read."""

    __slots__ = ("body", "content_type", "headers", "method", "path", "query", "request_id")

    def __init__(
        self,
        method: str,
        path: str,
        body: bytes,
        query: str,
        content_type: str,
        headers: "Callable[[], Mapping[str, str]]",
        request_id: str = "",
    ) -> None:
        self.method, self.path, self.body, self.query = method, path, body, query
        self.content_type, self.headers, self.request_id = content_type, headers, request_id

    def query_values(self) -> "dict[str, Any]":
        """Return the query's parameters, read as JSON where that is what they are; a repeated one is a list."""
        found: "dict[str, list[Any]]" = {}
        for name, text in parse_qsl(self.query, keep_blank_values=True):
            found.setdefault(name, []).append(_value(text))
        return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


class Work:
    """What one request asks of the model, understood: *data* is for ``Scorer.run``, *write* makes the reply.

    Works of an equal *key* may be joined, *rows* says how many rows each has; one with the key ``None`` is run alone.
    """

    __slots__ = ("data", "key", "rows", "write")

    def __init__(self, data: Any, write: "Callable[[Any], Reply]", key: Hashable = None, rows: int = 1) -> None:
        self.data, self.write, self.key, self.rows = data, write, key, rows


@dataclass(frozen=True)
class Tensor:
    """A named input or output in the words of the Open Inference Protocol: ``FP64``, ``[-1, 10]``; -1 is any length."""

    name: str
    datatype: str
    shape: "tuple[int, ...]"


@dataclass(frozen=True)
class Signature:
    """The tensors that a model takes and gives; *platform* as the protocol's registry of platforms names it."""

    inputs: "tuple[Tensor, ...]" = ()
    outputs: "tuple[Tensor, ...]" = ()
    platform: str = ""


class Scorer(Protocol):
    """Loaded by its constructor, on a worker's main thread; the other methods are called on its prediction threads.

    ``read``, ``take`` and ``run`` raise ``BadRequestError`` if the client is wrong, ``ScoringError`` if we are.
    """

    contract: Contract
    """What it declares; its source is ``none`` where it declares nothing."""
    declared: "Optional[dict[str, Any]]"
    """The same as Swagger schemas with examples, ``{"input": ..., "output": ...}``, where there are decorators."""
    signature: Optional[Signature]
    """The same as tensors, or ``None`` where only the body's own form is known."""

    def start(self) -> None:
        """Get ready to score; ``StartError`` ends the service."""

    def read(self, call: Call) -> Work:
        """Understand a request to ``/score``."""

    def take(self, tensors: "Mapping[str, Any]", outputs: "Sequence[str]") -> Work:
        """Understand named arrays instead; ``tensors.fitted`` holds them against the signature.

        *outputs* are the names that are asked for, of those in the signature; none leaves it to the scorer. Whatever
        ``write`` is, the caller writes the reply, from ``give`` of the result.
        """

    def give(self, result: Any, outputs: "Sequence[str]") -> "dict[str, Any]":
        """Return a result of ``run`` as named arrays; *outputs* is what ``take`` had."""

    def run(self, data: Any) -> Any:
        """Score."""

    def join(self, parts: "list[Any]") -> Any:
        """Return the data of works of one key as one."""

    def split(self, result: Any, rows: "list[int]") -> "list[Any]":
        """Return the results of joined works, in their order; ``ValueError`` when there is not one for each row."""


class Alone:
    """What a scorer is that knows neither tensors nor independent rows; scorers that do override these."""

    signature: Optional[Signature] = None

    def take(self, tensors: "Mapping[str, Any]", outputs: "Sequence[str]") -> Work:
        raise untensored("it does not say what it takes")

    def give(self, result: Any, outputs: "Sequence[str]") -> "dict[str, Any]":
        raise TypeError("a model without declared tensors gave {!r}".format(type(result).__name__))

    def join(self, parts: "list[Any]") -> Any:
        raise TypeError("works without a key are not joined")

    def split(self, result: Any, rows: "list[int]") -> "list[Any]":
        raise TypeError("works without a key are not joined")


def untensored(why: str) -> BadRequestError:
    """Return the refusal of tensors by a model that has none, which says *why*."""
    return BadRequestError("the model declares no tensors: {}; send its own JSON to /score".format(why), status=404)


def log_traceback(error: BaseException) -> None:
    """Write a traceback to stderr that starts in the user's code, or all of it where only ours is in it."""
    inner: Optional[TracebackType] = error.__traceback__
    while inner is not None and inner.tb_frame.f_globals.get("__name__", "").startswith(OURS):
        inner = inner.tb_next
    # A script that is not Python has no frames: the error itself says the line.
    whole = None if isinstance(error, SyntaxError) else error.__traceback__
    logs.log_traceback(error, inner or whole)


def said(error: BaseException) -> str:
    """Return an exception in one line."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = ["its text cannot be had"]
    return "{}: {}".format(type(error).__name__, lines[0][:300]) if lines else type(error).__name__


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
