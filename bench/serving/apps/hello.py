"""The limit of the HTTP server: read the body, answer the same bytes."""

from typing import Any

HEADERS = [("content-type", "application/json")]


async def app(scope: Any, protocol: Any) -> None:
    await protocol()
    protocol.response_bytes(200, HEADERS, b'{"predict":[0.0]}')
