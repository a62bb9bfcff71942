"""From what ``run`` returns to the bytes of a reply, and from the bytes of a request to JSON."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson

from stageway.errors import StagewayError

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
RUN_FAILED = "x-ms-run-function-failed"
OURS = ("content-type", "content-length", "connection", "transfer-encoding", RUN_FAILED)
"""Headers of a response object that this server writes, or does without."""

MISSING = ("NAType", "NaTType")
"""What pandas has where a value is missing."""
NOT_SEARCHED = 1_000_000
"""Bytes of a reply from which on nobody looks for the number that became null in it."""

log = logging.getLogger(__name__)
_searches = 100
"""How many more replies with null are looked into."""


class BadRequestError(StagewayError):
    """The client can put this right; *status* is what HTTP calls it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Reply:
    """A whole answer; ``seconds`` is what ``run`` took, ``failed`` that it raised."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: "list[tuple[str, str]]" = field(default_factory=list)
    seconds: float = 0.0
    failed: bool = False


def message(status: int, sentence: str) -> Reply:
    """Return a reply that says one sentence, in the form every error has."""
    # What a client sent may be repeated in it, and JSON's escapes can say half a character.
    return Reply(status, orjson.dumps({"message": sentence.encode("utf-8", "backslashreplace").decode()}))


def of(value: Any) -> Reply:
    """Return *value* as a reply: a response object as it is, everything else as JSON, ``None`` as ``{}``."""
    if hasattr(value, "get_data") and hasattr(value, "status_code"):
        return _passed_through(value)
    body = b"{}" if value is None else dumps(value)
    if _searches > 0 and b"null" in body and len(body) < NOT_SEARCHED:
        _warn_of_no_number(value)
    return Reply(200, body)


def dumps(value: Any) -> bytes:
    """Write JSON, also of arrays, tables, sets, durations and numbers that Python has not; ``TypeError`` for the rest.

    What is no number (``NaN``, ``Infinity``) is ``null``.
    """
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        pass
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        try:
            # Whole numbers over 64 bits and half characters, which only Python writes.
            return json.dumps(value, allow_nan=False).encode()
        except (TypeError, ValueError):
            raise error from None


def loads(body: bytes) -> Any:
    """Read JSON, with ``NaN`` and ``Infinity`` as Python writes them; the client is told what is wrong with it."""
    try:
        return orjson.loads(body)
    except ValueError:
        pass
    if not body.strip():
        raise BadRequestError("the body is empty; send a JSON object")
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        raise BadRequestError("the body is not UTF-8 text") from None
    except ValueError as error:
        raise BadRequestError("the body is not JSON: {}".format(error)) from None
    except RecursionError:
        raise BadRequestError("the body is nested too deeply") from None


def _warn_of_no_number(value: Any) -> None:
    """Say it in the log, once, if a null in a reply was NaN or infinity."""
    global _searches
    _searches -= 1
    try:
        json.dumps(value, allow_nan=False, default=_plain, skipkeys=True)
    except ValueError:
        _searches = 0
        log.warning("the result holds NaN or infinity, which JSON has no number for; the reply says null")
    except (TypeError, RecursionError):
        pass


def _plain(value: Any) -> Any:
    """Turn what orjson does not know into what it does."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if type(value).__name__ in MISSING:
        return None
    if getattr(getattr(value, "dtype", None), "kind", "") == "m":
        # In any shorter unit they would become bare numbers.
        return value.astype("m8[us]").tolist()
    for name in ("tolist", "isoformat"):
        if hasattr(value, name):
            return getattr(value, name)()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError("{} cannot be written as JSON".format(type(value).__name__))


def _duration(value: timedelta) -> str:
    """Return ISO 8601, written as pandas writes it: days and the rest of one, ``P1DT2H0M0.5S``."""
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    part = ".{:06}".format(value.microseconds).rstrip("0") if value.microseconds else ""
    return "P{}DT{}H{}M{}{}S".format(value.days, hours, minutes, seconds, part)


def _passed_through(response: Any) -> Reply:
    """Take a response object of the script's (ours, Flask's or its like) as it is; headers can repeat."""
    headers = [(str(name), str(text)) for name, text in (getattr(response, "headers", None) or {}).items()]
    kept = [(name, _sendable(name, text)) for name, text in headers if name.lower() not in OURS]
    known = {name.lower(): text for name, text in headers}
    data, status = response.get_data(), int(response.status_code)
    if not 200 <= status <= 599:
        raise ValueError("the response has the status {}; it is a number from 200 to 599".format(status))
    body = data.encode() if isinstance(data, str) else bytes(data)
    reply = Reply(status, body, _sendable("content-type", known.get("content-type", JSON)), kept)
    reply.failed = bool(getattr(response, "run_function_failed", False)) or known.get(RUN_FAILED) == "True"
    return reply


def _sendable(name: str, text: str) -> str:
    if not (name + text).isprintable() or not (name + text).isascii() or not name or " " in name:
        raise ValueError("the header {!r} of the response cannot be sent: {!r}".format(name, text))
    return text
