"""What client and keeper say to each other: one JSON object a line over a Unix socket, a question and its answer.

Errors cross as their type and text. A keeper of another version is only told to stop.
"""

from __future__ import annotations

import json
from typing import Any

from stageway.errors import ConfigError, RefusedError, StagewayError, TargetError, TryAgainError

VERSION = 1
SOCKET = "keeper.sock"
LONGEST = 4 * 2**20

_ERRORS: dict[str, type[StagewayError]] = {
    error.__name__: error for error in (ConfigError, RefusedError, TargetError, TryAgainError)
}


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps({"v": VERSION, **message}).encode() + b"\n"


def decode(line: bytes, *, any_version: bool = False) -> dict[str, Any]:
    """Return the message. Raises ``TargetError`` when it is of another version, unless that does not matter."""
    message = json.loads(line)
    other = message.get("v")
    if other != VERSION and not any_version:
        raise TargetError(
            f"this workspace's keeper is of another version of Stageway than this program ({other}, not {VERSION}); "
            "`stageway down`, then `stageway up`, replaces it"
        )
    return dict(message)


def error_to_json(error: StagewayError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": error.message, "detail": error.detail}


def error_from_json(message: dict[str, Any]) -> Exception:
    """Return what was raised on the other side; what is not a ``StagewayError`` there is a bug, here too."""
    kind = _ERRORS.get(str(message["error"]))
    if kind is None:
        return RuntimeError(f"the keeper failed, and .stageway/keeper.log says more: {message['message']}")
    return kind(message["message"], detail=message.get("detail", ""))
