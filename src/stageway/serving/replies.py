"""From what ``run`` returns to the bytes of a reply, and from the bytes of a request to JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from stageway.errors import StagewayError

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


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
    return Reply(200, b"{}" if value is None else dumps(value))


def dumps(value: Any) -> bytes:
    """Write JSON, also of arrays, tables, sets and numbers that are not Python's; ``TypeError`` for anything else."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        return orjson.dumps(value, default=_plain, option=option)


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


def _plain(value: Any) -> Any:
    """Turn what orjson does not know into what it does."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    for name in ("tolist", "isoformat"):
        if hasattr(value, name):
            return getattr(value, name)()
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError("{} cannot be written as JSON".format(type(value).__name__))


def _passed_through(response: Any) -> Reply:
    headers = [(str(name), str(text)) for name, text in dict(getattr(response, "headers", None) or {}).items()]
    kept = [(name, text) for name, text in headers if name.lower() not in ("content-type", "content-length")]
    kinds = [text for name, text in headers if name.lower() == "content-type"]
    data = response.get_data()
    body = data.encode() if isinstance(data, str) else bytes(data)
    return Reply(int(response.status_code), body, kinds[0] if kinds else JSON, kept)
