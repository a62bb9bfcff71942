"""A client that keeps scoring while the demo replaces what it talks to: one open connection, and no second try."""

from __future__ import annotations

import http.client
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

VERSION_HEADER = "x-stageway-model-version"
PAUSE = 0.004
"""Between two requests, so that the client leaves the two cores of a small machine to what it watches."""


@dataclass(frozen=True)
class Scored:
    """A reply: what it says, and which version says it."""

    value: Any
    version: str


def score(endpoint: str, body: bytes, connection: http.client.HTTPConnection | None = None) -> Scored:
    """Send one request to ``/score``. Raises ``OSError`` or ``http.client.HTTPException`` when it fails."""
    used = connection or connect(endpoint)
    try:
        used.request("POST", "/score", body, {"Content-Type": "application/json"})
        reply = used.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise http.client.HTTPException(f"status {reply.status}: {content[:200]!r}")
        return Scored(json.loads(content), reply.headers.get(VERSION_HEADER, ""))
    finally:
        if connection is None:
            used.close()


def connect(endpoint: str) -> http.client.HTTPConnection:
    """Return a connection to *endpoint*. Where a reply asks for it, the next request opens a new one."""
    address = urlsplit(endpoint)
    return http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)


class Client(threading.Thread):
    """Scores until ``stop``, and checks each reply: status, version, and the value that version must give.

    *expected* is asked with the version in the reply's header.
    """

    def __init__(self, endpoint: str, body: bytes, expected: Callable[[str], Any]) -> None:
        super().__init__(name="demo-client", daemon=True)
        self.endpoint, self.body, self.expected = endpoint, body, expected
        self.replies: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._changed = threading.Condition()

    @property
    def requests(self) -> int:
        return sum(self.replies.values()) + len(self.failures)

    def run(self) -> None:
        connection = connect(self.endpoint)
        while not self._stopping.is_set():
            try:
                scored = score(self.endpoint, self.body, connection)
                problem = self._problem(scored)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
                connection.close()
            with self._changed:
                if problem:
                    self.failures.append(problem)
                else:
                    self.replies[scored.version] += 1
                self._changed.notify_all()
            self._stopping.wait(PAUSE)
        connection.close()

    def until(self, enough: Callable[[], bool], timeout: float = 30) -> bool:
        """Wait until *enough* is true after some request; return whether it is."""
        with self._changed:
            return self._changed.wait_for(enough, timeout)

    def stop(self) -> Mapping[str, int]:
        """Stop, and return how many replies came from each version."""
        self._stopping.set()
        self.join()
        return dict(self.replies)

    def _problem(self, scored: Scored) -> str:
        try:
            wanted = self.expected(scored.version)
        except KeyError:
            return f"a reply of {scored.version or 'no version'}, which is not on its way"
        if not close(scored.value, wanted):
            return f"{scored.version} answered {scored.value} where it predicts {wanted}"
        return ""


def close(value: Any, wanted: Any) -> bool:
    """Say whether two replies are the same up to the last digits of their numbers."""
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(close(one, other) for one, other in zip(value, wanted, strict=True))
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, rel_tol=1e-9)
    return bool(value == wanted)
